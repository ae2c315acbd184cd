# -DLLAVA_SANITIZE=address,undefined (works with the uninstrumented LibTorch) or thread (torch-free targets only).
if(LLAVA_SANITIZE)
  add_compile_options(-fsanitize=${LLAVA_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${LLAVA_SANITIZE})
endif()
if(LLAVA_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=address,undefined)
endif()
