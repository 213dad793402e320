# A peer that is slow in one way, and not there in another. See src/turns.rs for what it answers.
while read -r line; do
    case $line in
    run*) echo '{"ms":5000.0}' ;;
    memory) echo '{"memory":[1.0,2.0]}' ;;
    *'"side":"openvino"'* | *'"side":"graph"'*) echo '{"error":"there is none"}' ;;
    *) echo '{"ready":{"distance":1e-6,"versions":{"fake":"1"}}}' ;;
    esac
done
