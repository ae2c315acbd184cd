#!/usr/bin/env bash
# Copies the small part of the reference goldens that is committed, so that a clone without them still proves parity:
#   tools/reference/copy_golden_subset.sh ../shared/reference/golden
set -euo pipefail
from=${1:?usage: copy_golden_subset.sh GOLDEN_FOLDER}
to=$(cd "$(dirname "$0")/../.." && pwd)/tests/golden
for item in checkpoints/llava15 train tokenizers/llama.json original_labels.json chat_templates.json; do
  mkdir -p "$to/$(dirname "$item")"
  cp -r "$from/$item" "$to/$(dirname "$item")/"
done
chmod -R u+w "$to"
