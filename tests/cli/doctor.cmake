# `qanat doctor` names the CUDA library that it tried, what is wrong with it and what to do; the program needs no CUDA
# library by itself.
foreach(case "/nowhere/libqanat_cuda.so=no such file=QANAT_CUDA_LIBRARY names it elsewhere"
             "${FOREIGN}=built from another source tree=from one tree"
             "${CMAKE_CURRENT_LIST_FILE}=invalid ELF header=LD_LIBRARY_PATH")
  string(REPLACE "=" ";" case "${case}")
  list(GET case 0 library)
  set(ENV{QANAT_CUDA_LIBRARY} ${library})
  execute_process(COMMAND ${PROGRAM} doctor OUTPUT_VARIABLE said RESULT_VARIABLE status)
  foreach(wanted ${case} "learner.device: auto   cpu" " actors in a run")
    string(FIND "${said}" "${wanted}" at)
    if(NOT status EQUAL 0 OR at EQUAL -1)
      message(SEND_ERROR "QANAT_CUDA_LIBRARY=${library} qanat doctor: exit code ${status}, wanted '${wanted}' in\n${said}")
    endif()
  endforeach()
endforeach()

find_program(readelf readelf REQUIRED)
execute_process(COMMAND ${readelf} -d ${PROGRAM} OUTPUT_VARIABLE dynamic COMMAND_ERROR_IS_FATAL ANY)
if(NOT dynamic MATCHES "NEEDED" OR dynamic MATCHES "NEEDED[^\n]*(cuda|cudnn|cublas|nvidia)")
  message(SEND_ERROR "${PROGRAM} needs a CUDA library, or nothing at all:\n${dynamic}")
endif()
