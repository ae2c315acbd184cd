# llava_module(NAME SOURCES a.cpp … DEPS base config … [LIBS external …] [TORCH] [COLD])
# One static library per folder of src/, alias llava::NAME. DEPS are our own modules: the link lines are the dependency rule
# (docs/architecture.md); tests/unit/architecture checks the includes against them. TORCH: links LibTorch and uses the shared
# precompiled header, so that only such modules pay for it. COLD: compiled with little optimisation.
# llava_unity(TARGET): compiles its files in a few groups (LLAVA_UNITY). Most of a file's time goes into headers that its
# neighbours include too. Names in unnamed namespaces must therefore differ within a folder; the dev preset compiles each file alone,
# which proves its includes.
function(llava_unity target)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${LLAVA_UNITY} UNITY_BUILD_BATCH_SIZE 8)
endfunction()
# llava_optimise_little(TARGET): for code that is nowhere hot; -O1 compiles in two thirds of -O3's time.
function(llava_optimise_little target)
  target_compile_options(${target} PRIVATE $<$<CONFIG:Release>:-O1>)
endfunction()
define_property(GLOBAL PROPERTY LLAVA_MODULES BRIEF_DOCS "names of all modules" FULL_DOCS "names of all modules")
function(llava_module name)
  cmake_parse_arguments(M "TORCH;COLD" "" "SOURCES;DEPS;LIBS" ${ARGN})
  add_library(llava_${name} STATIC ${M_SOURCES})
  add_library(llava::${name} ALIAS llava_${name})
  target_include_directories(llava_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
                                                  $<INSTALL_INTERFACE:include/llava>)
  foreach(dep ${M_DEPS})
    target_link_libraries(llava_${name} PUBLIC llava_${dep})
  endforeach()
  target_link_libraries(llava_${name} PUBLIC ${M_LIBS})
  target_link_libraries(llava_${name} PRIVATE $<BUILD_INTERFACE:llava_warnings>)
  if(M_TORCH)
    # the installed package config defines llava::torch, from the LibTorch found there
    target_link_libraries(llava_${name} PUBLIC $<BUILD_INTERFACE:llava_torch> $<INSTALL_INTERFACE:llava::torch>)
    llava_use_torch_pch(llava_${name})
  endif()
  llava_unity(llava_${name})
  if(M_COLD)
    llava_optimise_little(llava_${name})
  endif()
  set_target_properties(llava_${name} PROPERTIES EXPORT_NAME ${name})
  set_property(GLOBAL APPEND PROPERTY LLAVA_MODULES ${name})
endfunction()
