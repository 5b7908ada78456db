# Run by the test "install": BUILD is the build folder, SOURCE the tree, PREFIX where to install.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(result)
    message(FATAL_ERROR "failed: ${ARGN}\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${PREFIX} ${PREFIX}-consumer ${PREFIX}-template)
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${PREFIX})
run(${PREFIX}/bin/qanat --version)
run(${CMAKE_COMMAND} -S ${SOURCE}/tests/structure/consumer -B ${PREFIX}-consumer -G ${GENERATOR}
    -DCMAKE_PREFIX_PATH=${PREFIX} -DCOIN_SOURCE=${SOURCE}/tests/envs/plugin/coin.cpp)
run(${CMAKE_COMMAND} --build ${PREFIX}-consumer)
# The plug-in must have found the installed headers, not the tree's.
file(STRINGS ${PREFIX}-consumer/build.ninja includes REGEX "^ *INCLUDES = ")
if(NOT includes MATCHES "${PREFIX}/include" OR includes MATCHES "${SOURCE}/include")
  message(FATAL_ERROR "the consumer was built with ${includes}")
endif()

# So must the template that the installed program writes.
run(${PREFIX}/bin/qanat env new --cpp mine --dir ${PREFIX}-template)
run(${CMAKE_COMMAND} -S ${PREFIX}-template -B ${PREFIX}-template/build -G ${GENERATOR})
run(${CMAKE_COMMAND} --build ${PREFIX}-template/build)
file(STRINGS ${PREFIX}-template/build/CMakeCache.txt found REGEX "^QANAT(_INCLUDE)?:")
if(NOT found MATCHES "${PREFIX}/include" OR NOT found MATCHES "${PREFIX}/bin/qanat")
  message(FATAL_ERROR "the template was built with ${found}")
endif()
