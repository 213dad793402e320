# A peer that is slow in one way, and not there in another. See src/turns.rs for what it answers.
read -r request
case "$request" in
*'"side":"openvino"'*) echo '{"error":"there is none"}' ;;
*) echo '{"ready":{"distance":1e-6,"versions":{"fake":"1"}}}' ;;
esac
while read -r order _; do
    case $order in
    run) echo '{"ms":5000.0}' ;;
    memory) echo '{"memory":[1.0,2.0]}' ;;
    esac
done
