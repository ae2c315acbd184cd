# Run at build time: writes OUT only if its text changed. SOURCE: repository root; VERSION: project version.
execute_process(COMMAND git describe --tags --always --abbrev=10 WORKING_DIRECTORY ${SOURCE}
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#pragma once
#define LLAVA_VERSION \"${VERSION}\"
#define LLAVA_COMMIT \"${commit}\"
")
