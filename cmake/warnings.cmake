# Warnings for our own code only; libraries are SYSTEM includes.
add_library(llava_warnings INTERFACE)
target_compile_options(llava_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                       -Wno-missing-field-initializers)  # designated initialisers leave the rest at their defaults
# GCC 12 sees overlapping copies in string concatenation that are not there (GCC bug 105329)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(llava_warnings INTERFACE -Wno-restrict)
endif()
if(LLAVA_WERROR)
  target_compile_options(llava_warnings INTERFACE -Werror)
endif()
