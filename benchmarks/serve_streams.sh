#!/usr/bin/env bash
# 1,000 streams held by the whole server (`bise serve` with the mock engine, a token each 100 ms): what it adds to each
# event's time, whether a stream is lost, and its resident memory. benchmarks/http_streams_benchmark is the client.
#
# Usage: benchmarks/serve_streams.sh BUILD_FOLDER [SECONDS] [MODEL]    (default: 600 seconds, build/models/smollm2)
set -euo pipefail

if [ $# -lt 1 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
    exit 1
fi
build=$1
seconds=${2:-600}
model=${3:-$(dirname "$0")/../build/models/smollm2}
streams=1000
# A stream has at most as many tokens as the context: long runs are cut into rounds of at most 300 s.
rounds=$(((seconds + 299) / 300))
events=$((seconds * 10 / rounds))
log=$(mktemp)
"$build/bise" serve "$model" --load-format mock --mock-token-seconds 0.1 --max-num-seqs $streams --host 127.0.0.1 --port 0 \
    --disable-uvicorn-access-log >"$log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server; rm -f "$log"' EXIT
until grep -q "Application startup complete" "$log"; do
    kill -0 $server || { cat "$log" >&2; exit 1; }
    sleep 0.1
done
url=$(grep -o 'http://127.0.0.1:[0-9]*' "$log" | head -1)
"$build/benchmarks/http_streams_benchmark" --url="$url/v1/completions" --streams=$streams --events=$events --interval-ms=100 \
    --rounds=$rounds --pid=$server \
    --body="{\"prompt\": \"Tell me a story\", \"stream\": true, \"ignore_eos\": true, \"max_tokens\": $events}"
curl -s "$url/metrics" | grep -E '^(vllm:request_success_total.*(length|abort|error)|vllm:generation_tokens_total|process_cpu_seconds)'
