# cmake --install puts the binary, the module libraries with their headers and a package config, so that another project can
# say find_package(llava) and link llava::model (see examples in docs/architecture.md).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

get_property(_modules GLOBAL PROPERTY LLAVA_MODULES)
set(_targets "")
foreach(_module ${_modules})
  list(APPEND _targets llava_${_module})
endforeach()
if(TARGET llava_images)
  list(APPEND _targets llava_images)
endif()
if(TARGET llava_ffmpeg)
  list(APPEND _targets llava_ffmpeg)
endif()
install(TARGETS ${_targets} llava_fmt llava_cli11 EXPORT llava-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/llava)
install(EXPORT llava-targets NAMESPACE llava:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llava)
install(DIRECTORY src/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/llava FILES_MATCHING PATTERN "*.h")
if(TARGET llava)
  install(TARGETS llava RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
# The default model, once scripts/demo or scripts/test has put it together: its files, not the links of the build folder.
install(CODE "
  if(EXISTS \"${PROJECT_BINARY_DIR}/models/llava-nano/config.json\")
    execute_process(COMMAND \"${CMAKE_COMMAND}\" -E copy_directory \"${PROJECT_BINARY_DIR}/models/llava-nano\"
                    \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}/llava/models/llava-nano\" COMMAND_ERROR_IS_FATAL ANY)
  endif()")
configure_package_config_file(cmake/llava-config.cmake.in ${PROJECT_BINARY_DIR}/llava-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llava)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/llava-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/llava-config.cmake ${PROJECT_BINARY_DIR}/llava-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/llava)
