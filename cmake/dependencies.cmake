# Header-only libraries the core needs, each as an imported target; the optional ones are looked up by the module that uses them.
find_package(nlohmann_json 3.11 REQUIRED)
find_package(Threads REQUIRED)
find_path(LLAVA_FMT_INCLUDE fmt/format.h REQUIRED)
add_library(llava_fmt INTERFACE)
target_include_directories(llava_fmt SYSTEM INTERFACE ${LLAVA_FMT_INCLUDE})
# The library, where it is installed beside the headers: its code is then not compiled into every file (3 s each at -O3). Files
# that see LibTorch take the newer fmt of its headers (another inline namespace), and that one has headers only.
find_library(LLAVA_FMT_LIBRARY fmt)
mark_as_advanced(LLAVA_FMT_LIBRARY)
if(LLAVA_FMT_LIBRARY)
  target_link_libraries(llava_fmt INTERFACE ${LLAVA_FMT_LIBRARY})
else()
  target_compile_definitions(llava_fmt INTERFACE FMT_HEADER_ONLY=1)
endif()
find_path(LLAVA_CLI11_INCLUDE CLI/CLI.hpp REQUIRED)
add_library(llava_cli11 INTERFACE)
target_include_directories(llava_cli11 SYSTEM INTERFACE ${LLAVA_CLI11_INCLUDE})
