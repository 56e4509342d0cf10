/* Copies its input to its output. */
#include <stdio.h>

int main(void) {
    static char buffer[65536];
    size_t count;
    while ((count = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
        if (fwrite(buffer, 1, count, stdout) != count) {
            return 1;
        }
    }
    return ferror(stdin) || fflush(stdout) ? 1 : 0;
}
