/* Reading directories by the C library, in a directory /data that is empty at the beginning. */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"

enum { MANY = 1000 };

static int make(int number) {
    char path[64];
    snprintf(path, sizeof path, "/data/a-rather-long-name-of-a-file-%d", number);
    int fd = open(path, O_WRONLY | O_CREAT, 0644);
    return fd >= 0 && close(fd) == 0;
}

static int count(DIR *dir) {
    int found = 0;
    while (readdir(dir)) found++;
    return found;
}

int main(void) {
    for (int number = 0; number < MANY; number++) CHECK(make(number));
    DIR *dir = opendir("/data");
    CHECK(dir != NULL);
    if (!dir) return 1;
    struct dirent *entry = readdir(dir);
    CHECK(entry && strcmp(entry->d_name, ".") == 0 && entry->d_type == DT_DIR);
    entry = readdir(dir);
    CHECK(entry && strcmp(entry->d_name, "..") == 0);
    entry = readdir(dir);
    CHECK(entry && entry->d_type == DT_REG && entry->d_ino != 0);
    long place = telldir(dir);
    entry = readdir(dir);
    char name[256];
    snprintf(name, sizeof name, "%s", entry ? entry->d_name : "");
    CHECK(count(dir) == MANY - 2);
    seekdir(dir, place);
    entry = readdir(dir);
    CHECK(entry && strcmp(entry->d_name, name) == 0);
    rewinddir(dir);
    CHECK(count(dir) == MANY + 2);

    /* What `rm -r` does. */
    rewinddir(dir);
    int removed = 0;
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        if (unlinkat(dirfd(dir), entry->d_name, 0) == 0) removed++;
    }
    CHECK(removed == MANY);
    rewinddir(dir);
    CHECK(count(dir) == 2);
    CHECK(closedir(dir) == 0);

    CHECK(opendir("/data/none") == NULL && errno == ENOENT);
    CHECK(make(1) && opendir("/data/a-rather-long-name-of-a-file-1") == NULL && errno == ENOTDIR);
    struct dirent **list = NULL;
    int listed = scandir("/data", &list, NULL, alphasort);
    CHECK(listed == 3 && strcmp(list[2]->d_name, "a-rather-long-name-of-a-file-1") == 0);
    CHECK(unlink("/data/a-rather-long-name-of-a-file-1") == 0);
    if (!wrong) puts("all as it should be");
    return wrong != 0;
}
