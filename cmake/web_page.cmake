# llama.cpp's web page for pytriattn-server, built from the pinned tree by npm. That takes minutes and downloads a thousand
# packages, so it is done on demand: -DPYTRIATTN_WEB_PAGE=ON.
option(PYTRIATTN_WEB_PAGE "Build llama.cpp's web page for pytriattn-server, with npm" OFF)
if (NOT PYTRIATTN_WEB_PAGE)
    return()
endif()

find_program(PYTRIATTN_NPM npm REQUIRED)
set(page ${CMAKE_BINARY_DIR}/web_page)
file(GLOB_RECURSE page_sources CONFIGURE_DEPENDS
    ${LLAMA_CPP_DIR}/tools/ui/src/* ${LLAMA_CPP_DIR}/tools/ui/static/* ${LLAMA_CPP_DIR}/tools/ui/scripts/*)
# in a copy, since npm writes beside its sources; the packages are those of the lock file, and none of their scripts runs
add_custom_command(
    OUTPUT ${page}/built/index.html
    COMMAND ${CMAKE_COMMAND} -E rm -rf ${page}
    COMMAND ${CMAKE_COMMAND} -E copy_directory ${LLAMA_CPP_DIR}/tools/ui ${page}/source
    COMMAND ${CMAKE_COMMAND} -E chdir ${page}/source ${PYTRIATTN_NPM} ci --ignore-scripts --no-audit --no-fund
    COMMAND ${CMAKE_COMMAND} -E chdir ${page}/source
        ${CMAKE_COMMAND} -E env LLAMA_UI_OUT_DIR=${page}/built ${PYTRIATTN_NPM} run build
    COMMAND ${CMAKE_COMMAND} -DBUILT=${page}/built -P ${CMAKE_CURRENT_LIST_DIR}/web_page/add_script.cmake
    DEPENDS ${CMAKE_CURRENT_LIST_DIR}/web_page/saved.js ${CMAKE_CURRENT_LIST_DIR}/web_page/add_script.cmake ${page_sources} ${LLAMA_CPP_DIR}/tools/ui/package-lock.json
    COMMENT "Building the web page"
    VERBATIM)
add_custom_target(pytriattn-web-page ALL DEPENDS ${page}/built/index.html)
install(DIRECTORY ${page}/built/ COMPONENT pytriattn DESTINATION pytriattn/page)
