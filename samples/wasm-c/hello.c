/* Prints one line. */
#include <stdio.h>

int main(void) {
    puts("hello spear wasm");
    return 0;
}
