# Several processes (src/dist): LibTorch's c10d with gloo on a CPU, NCCL on CUDA. LibTorch holds gloo's code but not its headers;
# Debian's libgloo-dev has them. NCCL needs a CUDA LibTorch and nccl.h. LLAVA_DIST AUTO takes what is there, ON insists on gloo.
# Sets LLAVA_HAS_GLOO and LLAVA_HAS_NCCL.
find_path(LLAVA_GLOO_INCLUDE gloo/transport/device.h)
find_path(LLAVA_NCCL_INCLUDE nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ENV NCCL_INCLUDE_DIR)
mark_as_advanced(LLAVA_GLOO_INCLUDE LLAVA_NCCL_INCLUDE)
set(LLAVA_HAS_GLOO OFF)
set(LLAVA_HAS_NCCL OFF)
if(LLAVA_DIST AND LLAVA_GLOO_INCLUDE)
  set(LLAVA_HAS_GLOO ON)
elseif(LLAVA_DIST AND NOT LLAVA_DIST STREQUAL "AUTO")
  message(FATAL_ERROR "Training with several processes needs gloo's headers; install libgloo-dev\n"
                      "or configure with -DLLAVA_DIST=OFF (llava train then runs in one process only).")
endif()
if(LLAVA_HAS_GLOO AND TORCH_CUDA_LIBRARIES AND LLAVA_NCCL_INCLUDE)
  set(LLAVA_HAS_NCCL ON)
endif()
message(STATUS "Several processes: gloo ${LLAVA_HAS_GLOO}, NCCL ${LLAVA_HAS_NCCL}")
