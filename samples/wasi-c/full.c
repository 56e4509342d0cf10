/* A directory /data that holds 100,000 bytes in 10 files, directories and links. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

static char bytes[60000];

int main(void) {
    int fd = open("/data/a", O_RDWR | O_CREAT, 0644);
    CHECK(write(fd, bytes, sizeof bytes) == 60000);
    CHECK(write(fd, bytes, sizeof bytes) == 40000);
    FAILS(write(fd, bytes, 1), ENOSPC);
    FAILS(ftruncate(fd, 100001), ENOSPC);
    CHECK(pwrite(fd, "x", 1, 0) == 1);
    CHECK(ftruncate(fd, 50000) == 0);
    CHECK(unlink("/data/a") == 0);
    int other = open("/data/b", O_RDWR | O_CREAT, 0644);
    /* The first has no name any more, and is there all the same. */
    FAILS(pwrite(other, bytes, 1, 50000), ENOSPC);
    CHECK(close(fd) == 0);
    CHECK(pwrite(other, bytes, 1, 50000) == 1);
    FILE *file = fopen("/data/c", "w");
    CHECK(file && fwrite(bytes, 1, sizeof bytes, file) < sizeof bytes && ferror(file));
    CHECK(file && fclose(file) == 0);
    CHECK(unlink("/data/c") == 0);
    for (char name[] = "/data/d0"; name[7] < '9'; name[7]++) CHECK(mkdir(name, 0755) == 0);
    FAILS(mkdir("/data/e", 0755), ENOSPC);
    FAILS(link("/data/b", "/data/e"), ENOSPC);
    FAILS(symlink("b", "/data/e"), ENOSPC);
    FAILS(open("/data/e", O_CREAT | O_WRONLY, 0644), ENOSPC);
    CHECK(open("/data/b", O_CREAT | O_WRONLY, 0644) > 0);
    CHECK(rmdir("/data/d0") == 0 && mkdir("/data/e", 0755) == 0);
    if (!wrong) puts("all as it should be");
    return wrong != 0;
}
