# ccache, when installed, makes a second build a matter of seconds, in another clone too (paths are made relative to the
# source). A precompiled header needs the two sloppiness settings.
if(LLAVA_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_BASEDIR=${PROJECT_SOURCE_DIR}
      CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${LLAVA_CCACHE})
endif()
