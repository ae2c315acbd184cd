# Warnings for our own code only; libraries are SYSTEM includes.
add_library(llava_warnings INTERFACE)
target_compile_options(llava_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                       -Wno-missing-field-initializers)  # designated initialisers leave the rest at their defaults
if(LLAVA_WERROR)
  target_compile_options(llava_warnings INTERFACE -Werror)
endif()
