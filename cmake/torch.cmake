# LibTorch, in this order: $Torch_DIR / -DTorch_DIR, then the torch of the python3 on PATH (>= 2.11).
# scripts/build downloads a CPU wheel when neither is there and passes Torch_DIR.
if(NOT Torch_DIR AND DEFINED ENV{Torch_DIR})
  set(Torch_DIR $ENV{Torch_DIR})
endif()
if(NOT Torch_DIR)
  find_package(Python3 COMPONENTS Interpreter)
  if(Python3_FOUND)
    execute_process(COMMAND ${Python3_EXECUTABLE} -c "import torch; print(torch.utils.cmake_prefix_path)"
                    OUTPUT_VARIABLE _torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(_torch_prefix)
      set(Torch_DIR ${_torch_prefix}/Torch)
    endif()
  endif()
endif()
find_package(Torch 2.11 QUIET)
if(NOT Torch_FOUND)
  message(FATAL_ERROR "LibTorch >= 2.11 was not found. Run scripts/build (it fetches the CPU wheel), or set Torch_DIR to "
                      "<torch>/share/cmake/Torch, or pass -DLLAVA_WITH_TORCH=OFF for the torch-free modules.")
endif()
message(STATUS "LibTorch ${Torch_VERSION} at ${Torch_DIR}")
add_library(llava_torch INTERFACE)
# libstdc++ before LibTorch: the CUDA wheels' libtorch.so exports a std::filesystem of its own, whose remove_all calls a null
# pointer (seen with 2.11 and CUDA 13); the first library that has a symbol wins.
set(LLAVA_STDCXX_FIRST "SHELL:-Wl,--push-state,--no-as-needed -lstdc++ -Wl,--pop-state")
target_link_options(llava_torch INTERFACE ${LLAVA_STDCXX_FIRST})
target_compile_definitions(llava_torch INTERFACE FMT_HEADER_ONLY=1)
get_target_property(_torch_includes torch INTERFACE_INCLUDE_DIRECTORIES)
target_include_directories(llava_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(llava_torch INTERFACE ${TORCH_LIBRARIES})
separate_arguments(_torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(llava_torch INTERFACE ${_torch_flags})

# An installed llava finds the LibTorch it was built with; CMake's own link-path rule leaves out one that lies inside the checkout,
# where scripts/build puts it.
get_filename_component(_torch_lib "${Torch_DIR}/../../../lib" ABSOLUTE)
list(APPEND CMAKE_INSTALL_RPATH "${_torch_lib}")

# LibTorch's own OpenMP runtime: our loops use its threads. Another copy would have threads of its own on the same cores, so
# without this one our loops run on one thread.
file(GLOB _torch_gomp "${_torch_lib}/libgomp*.so*")
if(_torch_gomp)
  list(GET _torch_gomp 0 LLAVA_TORCH_OPENMP)
endif()

# One precompiled torch/torch.h for every module that includes it (measured: 10.7 s -> 3.6 s a file).
function(llava_use_torch_pch target)
  if(NOT TARGET llava_torch_pch)
    if(NOT EXISTS ${PROJECT_BINARY_DIR}/torch_pch.cpp)  # a new time stamp would compile the header again
      file(WRITE ${PROJECT_BINARY_DIR}/torch_pch.cpp "")
    endif()
    add_library(llava_torch_pch OBJECT ${PROJECT_BINARY_DIR}/torch_pch.cpp)
    # the same warning flags as its users: -Wpedantic changes a predefined macro, and the header would be rejected
    target_link_libraries(llava_torch_pch PRIVATE llava_torch llava_fmt nlohmann_json::nlohmann_json llava_warnings)
    target_precompile_headers(llava_torch_pch PRIVATE <torch/torch.h> <fmt/format.h> <nlohmann/json.hpp>)
    target_compile_options(llava_torch_pch PRIVATE -fpch-preprocess)
  endif()
  target_compile_options(${target} PRIVATE -fpch-preprocess)
  get_target_property(_type ${target} TYPE)
  if(_type STREQUAL "EXECUTABLE")  # the header is compiled with -fPIC; g++ rejects it under an executable's -fPIE
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  target_precompile_headers(${target} REUSE_FROM llava_torch_pch)
endfunction()
