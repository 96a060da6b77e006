# Adds a script to the page in the folder BUILT.
file(READ ${BUILT}/index.html page)
string(FIND "${page}" "</head>" found)
if (found EQUAL -1)
    message(FATAL_ERROR "${BUILT}/index.html has no </head>, where saved.js is to be named")
endif()
string(REPLACE "</head>" "<script src=\"./saved.js\"></script></head>" page "${page}")
file(WRITE ${BUILT}/index.html "${page}")
file(COPY ${CMAKE_CURRENT_LIST_DIR}/saved.js DESTINATION ${BUILT})
