/* A case is a command that says what is wrong on standard error, and exits with 0 when nothing is. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

static int wrong;

#define CHECK(what)                                                                                                    \
    do {                                                                                                               \
        errno = 0;                                                                                                     \
        if (!(what)) {                                                                                                 \
            wrong++;                                                                                                   \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what, strerror(errno));                            \
        }                                                                                                              \
    } while (0)

/* It fails, and says why. */
#define FAILS(what, error) CHECK((what) == -1 && errno == (error))
