#!/usr/bin/env bash
# The same question at three efforts, with curl alone. Usage: effort-dial.sh [http://127.0.0.1:8080/v1]
set -euo pipefail
url="${1:-${BREVITY_URL:-http://127.0.0.1:8080/v1}}"
question='What is 37 * 9 - 88?'

for effort in low medium high; do
    echo "== $effort"
    curl --fail-with-body --silent --show-error --dump-header >(grep -i '^x-brevity' >&2) "$url/chat/completions" \
        -H 'content-type: application/json' \
        ${OPENAI_API_KEY:+-H "authorization: Bearer $OPENAI_API_KEY"} \
        -d '{"model": "brevity-mini", "seed": 7, "reasoning_effort": "'"$effort"'",
             "messages": [{"role": "user", "content": "'"$question"'"}]}'
    echo
done

echo '== streamed'
curl --fail-with-body --silent --show-error --no-buffer "$url/chat/completions" \
    -H 'content-type: application/json' \
    ${OPENAI_API_KEY:+-H "authorization: Bearer $OPENAI_API_KEY"} \
    -d '{"model": "brevity-mini", "seed": 7, "reasoning_effort": "low", "stream": true,
         "stream_options": {"include_usage": true},
         "messages": [{"role": "user", "content": "'"$question"'"}]}'
