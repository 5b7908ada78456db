# qanat_room(NAME SOURCES ... [LINKS room ...] [PRIVATE lib ...] [PUBLIC lib ...])
# One static library a room, called qanat_NAME. Rooms it may include are its LINKS; third-party
# libraries are PRIVATE, so that a header which leaks one does not build elsewhere.
add_library(qanat_flags INTERFACE)
target_compile_options(qanat_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Werror -Wno-restrict -Wno-missing-field-initializers
                            -fno-math-errno>)
target_include_directories(qanat_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_SOURCE_DIR}/include)
if(QANAT_SANITIZE)
  # GCC 12 warns of its own library when it instruments; the plain builds judge warnings.
  target_compile_options(qanat_flags INTERFACE -fsanitize=${QANAT_SANITIZE} -fno-omit-frame-pointer -g1 -Wno-error -Wno-maybe-uninitialized)
  target_link_options(qanat_flags INTERFACE -fsanitize=${QANAT_SANITIZE})
endif()

function(qanat_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINKS;PRIVATE;PUBLIC" ${ARGN})
  if(NOT ROOM_SOURCES)
    return()
  endif()
  add_library(qanat_${name} STATIC ${ROOM_SOURCES})
  list(TRANSFORM ROOM_LINKS PREPEND qanat_)
  target_link_libraries(qanat_${name} PUBLIC ${ROOM_LINKS} ${ROOM_PUBLIC} PRIVATE qanat_flags ${ROOM_PRIVATE})
endfunction()

# qanat_test(ROOM): tests/ROOM/*.cpp become one Catch2 program, test_ROOM, registered with ctest.
function(qanat_test room)
  cmake_parse_arguments(T "" "" "LINKS;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/${room}/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(test_${room} ${sources})
  list(TRANSFORM T_LINKS PREPEND qanat_)
  target_link_libraries(test_${room} PRIVATE qanat_flags qanat_test_main qanat_${room} ${T_LINKS})
  if(QANAT_SANITIZE)
    # A third of the compile time; what is under test keeps the build type's optimisation.
    target_compile_options(test_${room} PRIVATE -O0)
  endif()
  add_test(NAME ${room} COMMAND test_${room} --durations no)
  set_tests_properties(${room} PROPERTIES LABELS "${T_LABELS}" TIMEOUT 600)
endfunction()
