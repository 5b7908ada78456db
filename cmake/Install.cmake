# What `cmake --install` puts in place: bin/qanat, the public headers, and a package so that find_package(qanat)
# gives the target qanat::sdk. The rooms stay inside the program: their headers are not an interface.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(TARGET qanat)
  # A bundle keeps its libraries beside the program. The old tag (RPATH) also holds for the libraries' own needs.
  set_target_properties(qanat PROPERTIES INSTALL_RPATH "\$ORIGIN/../lib")
  target_link_options(qanat PRIVATE LINKER:--disable-new-dtags)
  install(TARGETS qanat RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

if(TARGET qanat_cuda)
  install(TARGETS qanat_cuda LIBRARY DESTINATION lib)  # where the program looks: ../lib of bin
endif()
install(DIRECTORY python/qanat_env_host DESTINATION share/qanat/python FILES_MATCHING PATTERN "*.py")

add_library(qanat_sdk INTERFACE)
add_library(qanat::sdk ALIAS qanat_sdk)
set_target_properties(qanat_sdk PROPERTIES EXPORT_NAME sdk)
target_compile_features(qanat_sdk INTERFACE cxx_std_20)
target_include_directories(qanat_sdk INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                                               $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
install(TARGETS qanat_sdk EXPORT qanat)
install(DIRECTORY include/qanat DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h" PATTERN "*.hpp")

set(package_dir lib/cmake/qanat)
install(EXPORT qanat NAMESPACE qanat:: FILE qanat-targets.cmake DESTINATION ${package_dir})
configure_package_config_file(cmake/qanat-config.cmake.in ${CMAKE_BINARY_DIR}/generated/qanat-config.cmake
                              INSTALL_DESTINATION ${package_dir})
# Headers only: one package serves every architecture. Until 1.0 a minor version may break the interface.
write_basic_package_version_file(${CMAKE_BINARY_DIR}/generated/qanat-config-version.cmake
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES ${CMAKE_BINARY_DIR}/generated/qanat-config.cmake ${CMAKE_BINARY_DIR}/generated/qanat-config-version.cmake
        DESTINATION ${package_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
