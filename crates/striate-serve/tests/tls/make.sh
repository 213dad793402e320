#!/bin/sh
# Makes the certificates of the tests, which nobody trusts: `make.sh` in this folder.
set -e
for name in server other; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 \
        -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout $name.key -out $name.pem
done
rm other.pem
