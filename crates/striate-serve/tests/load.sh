#!/bin/sh
# Requests per second and latencies of a server: load.sh ADDRESS PICTURE [SECONDS]
set -eu
[ $# -ge 2 ] || { echo "usage: load.sh ADDRESS PICTURE [SECONDS]" >&2; exit 2; }
script=$(mktemp)
trap 'rm -f "$script"' EXIT
cat > "$script" <<LUA
local file = assert(io.open("$2", "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "application/octet-stream"
function done(summary)
    io.write(string.format("refused or failed: %d\n", summary.errors.status + summary.errors.read + summary.errors.timeout))
end
LUA
for connections in 16 1; do
    echo "== $connections connection(s)"
    wrk --threads 1 --connections "$connections" --duration "${3:-30}s" --latency --script "$script" "$1"
done
