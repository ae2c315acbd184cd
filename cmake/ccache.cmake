# ccache, when installed, makes a second build a matter of seconds. A precompiled header needs the two sloppiness settings.
find_program(LLAVA_CCACHE ccache)
if(LLAVA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${LLAVA_CCACHE})
endif()
