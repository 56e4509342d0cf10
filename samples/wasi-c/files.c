/* What programs do with files, by the C library, in a directory /data that is empty at the beginning. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static char big[3 << 20], back[3 << 20];

static void reading_and_writing(void) {
    char text[32] = "";
    int fd = open("/data/file", O_RDWR | O_CREAT | O_EXCL, 0644);
    CHECK(fd > 2);
    FAILS(open("/data/file", O_RDWR | O_CREAT | O_EXCL, 0644), EEXIST);
    CHECK(write(fd, "hello world", 11) == 11);
    CHECK(lseek(fd, 0, SEEK_CUR) == 11);
    CHECK(lseek(fd, -5, SEEK_END) == 6);
    CHECK(read(fd, text, sizeof text) == 5 && memcmp(text, "world", 5) == 0);
    CHECK(read(fd, text, sizeof text) == 0);
    FAILS(lseek(fd, -1, SEEK_SET), EINVAL);
    CHECK(pread(fd, text, 5, 0) == 5 && memcmp(text, "hello", 5) == 0);
    CHECK(pwrite(fd, "HELLO", 5, 0) == 5);
    CHECK(lseek(fd, 0, SEEK_CUR) == 11);
    char first[3], second[8];
    struct iovec in[2] = {{first, sizeof first}, {second, sizeof second}};
    CHECK(preadv(fd, in, 2, 0) == 11 && memcmp(first, "HEL", 3) == 0 && memcmp(second, "LO world", 8) == 0);
    struct iovec out[2] = {{"ab", 2}, {"cd", 2}};
    CHECK(pwritev(fd, out, 2, 20) == 4);
    CHECK(pread(fd, text, 4, 12) == 4 && memcmp(text, "\0\0\0\0", 4) == 0);
    CHECK(ftruncate(fd, 5) == 0 && lseek(fd, 0, SEEK_END) == 5);
    CHECK(ftruncate(fd, 8) == 0 && pread(fd, text, 8, 0) == 8 && memcmp(text, "HELLO\0\0\0", 8) == 0);
    CHECK(posix_fallocate(fd, 0, 100) == 0 && lseek(fd, 0, SEEK_END) == 100);
    CHECK(fsync(fd) == 0 && fdatasync(fd) == 0);
    CHECK(!isatty(fd));
    CHECK(close(fd) == 0);
    FAILS(close(fd), EBADF);

    fd = open("/data/file", O_RDONLY);
    FAILS(write(fd, "x", 1), EBADF);
    FAILS(ftruncate(fd, 0), EINVAL);
    CHECK(close(fd) == 0);
    fd = open("/data/file", O_WRONLY | O_TRUNC);
    FAILS(read(fd, text, 1), EBADF);
    CHECK(lseek(fd, 0, SEEK_END) == 0);
    CHECK(close(fd) == 0);
    fd = open("/data/file", O_WRONLY | O_APPEND);
    CHECK(write(fd, "one", 3) == 3 && lseek(fd, 0, SEEK_SET) == 0 && write(fd, "two", 3) == 3);
    CHECK(lseek(fd, 0, SEEK_CUR) == 6);
    CHECK(fcntl(fd, F_GETFL) & O_APPEND);
    CHECK(fcntl(fd, F_SETFL, 0) == 0 && lseek(fd, 0, SEEK_SET) == 0 && write(fd, "ONE", 3) == 3);
    CHECK(close(fd) == 0);
    FILE *file = fopen("/data/file", "r+");
    CHECK(file && fgets(text, sizeof text, file) && strcmp(text, "ONEtwo") == 0);
    CHECK(file && fseek(file, 3, SEEK_SET) == 0 && fputs("TWO", file) >= 0 && fclose(file) == 0);
    file = fopen("/data/file", "a+");
    CHECK(file && fprintf(file, "%d", 3) == 1 && fclose(file) == 0);
    file = fopen("/data/file", "r");
    CHECK(file && fgets(text, sizeof text, file) && strcmp(text, "ONETWO3") == 0 && fclose(file) == 0);
}

/* Not every program calls again when it got less than it asked for. */
static void much_at_once(void) {
    for (size_t at = 0; at < sizeof big; at++) big[at] = (char)(at * 31 + at / 251);
    int fd = open("/data/big", O_RDWR | O_CREAT, 0644);
    CHECK(write(fd, big, sizeof big) == (ssize_t)sizeof big);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    CHECK(read(fd, back, sizeof back) == (ssize_t)sizeof back && memcmp(big, back, sizeof big) == 0);
    CHECK(close(fd) == 0 && unlink("/data/big") == 0);
}

static void names(void) {
    struct stat first, second;
    CHECK(mkdir("/data/dir", 0755) == 0);
    FAILS(mkdir("/data/dir", 0755), EEXIST);
    FAILS(mkdir("/data/no/dir", 0755), ENOENT);
    FAILS(rmdir("/data/file"), ENOTDIR);
    FAILS(unlink("/data/dir"), EISDIR);
    FAILS(open("/data/none", O_RDONLY), ENOENT);
    FAILS(open("/data/file/under", O_RDONLY), ENOTDIR);
    FAILS(open("/data/file", O_RDONLY | O_DIRECTORY), ENOTDIR);
    FAILS(open("/data/dir", O_WRONLY), EISDIR);
    CHECK(access("/data/file", F_OK) == 0 && access("/data/file", R_OK | W_OK) == 0);
    FAILS(access("/data/none", F_OK), ENOENT);
    CHECK(link("/data/file", "/data/dir/same") == 0);
    CHECK(stat("/data/file", &first) == 0 && stat("/data/dir/same", &second) == 0);
    CHECK(first.st_ino == second.st_ino && first.st_nlink == 2 && S_ISREG(first.st_mode) && first.st_size == 7);
    FAILS(rmdir("/data/dir"), ENOTEMPTY);
    CHECK(rename("/data/dir/same", "/data/other") == 0);
    FAILS(rename("/data/none", "/data/other"), ENOENT);
    FAILS(rename("/data/file", "/data/dir"), EISDIR);
    FAILS(rename("/data/dir", "/data/file"), ENOTDIR);
    /* Two names of one file: nothing happens. */
    CHECK(rename("/data/other", "/data/file") == 0 && access("/data/other", F_OK) == 0);
    CHECK(unlink("/data/other") == 0);
    CHECK(rmdir("/data/dir/") == 0);

    CHECK(symlink("file", "/data/link") == 0);
    char text[16];
    CHECK(readlink("/data/link", text, sizeof text) == 4 && memcmp(text, "file", 4) == 0);
    CHECK(readlink("/data/link", text, 2) == 2);
    FAILS(readlink("/data/file", text, sizeof text), EINVAL);
    CHECK(lstat("/data/link", &first) == 0 && S_ISLNK(first.st_mode) && stat("/data/link", &first) == 0);
    CHECK(S_ISREG(first.st_mode));
    FAILS(open("/data/link", O_RDONLY | O_NOFOLLOW), ELOOP);
    CHECK(unlink("/data/link") == 0 && access("/data/file", F_OK) == 0);
    CHECK(symlink("loop", "/data/loop") == 0);
    FAILS(open("/data/loop", O_RDONLY), ELOOP);
    CHECK(unlink("/data/loop") == 0);
    CHECK(symlink("../../etc", "/data/out") == 0);
    FAILS(open("/data/out/passwd", O_RDONLY), EPERM);
    CHECK(unlink("/data/out") == 0);
}

/* A file is there as long as somebody has it open, and what is renamed over it does not change that. */
static void open_without_a_name(void) {
    char text[4];
    int first = open("/data/a", O_RDWR | O_CREAT, 0644), second = open("/data/b", O_RDWR | O_CREAT, 0644);
    CHECK(write(first, "aaa", 3) == 3 && write(second, "bbb", 3) == 3);
    CHECK(rename("/data/a", "/data/b") == 0);
    FAILS(access("/data/a", F_OK), ENOENT);
    CHECK(pread(second, text, 3, 0) == 3 && memcmp(text, "bbb", 3) == 0);
    CHECK(unlink("/data/b") == 0);
    CHECK(pread(first, text, 3, 0) == 3 && memcmp(text, "aaa", 3) == 0 && write(first, "more", 4) == 4);
    struct stat now;
    CHECK(fstat(first, &now) == 0 && now.st_nlink == 0 && now.st_size == 7);
    CHECK(close(first) == 0 && close(second) == 0);
}

static void times(void) {
    struct stat now;
    struct timespec set[2] = {{1000, 5}, {2000, 7}}, kept[2] = {{0, UTIME_OMIT}, {3000, 0}};
    CHECK(utimensat(AT_FDCWD, "/data/file", set, 0) == 0 && stat("/data/file", &now) == 0);
    CHECK(now.st_atim.tv_sec == 1000 && now.st_mtim.tv_sec == 2000 && now.st_mtim.tv_nsec == 7);
    int fd = open("/data/file", O_RDWR);
    CHECK(futimens(fd, kept) == 0 && fstat(fd, &now) == 0);
    CHECK(now.st_atim.tv_sec == 1000 && now.st_atim.tv_nsec == 5 && now.st_mtim.tv_sec == 3000);
    CHECK(close(fd) == 0);
}

static void streams(void) {
    CHECK(!isatty(0) && !isatty(1) && !isatty(2));
    FAILS(lseek(1, 0, SEEK_CUR), ESPIPE);
    FAILS(write(0, "x", 1), EBADF);
    struct stat now;
    CHECK(fstat(0, &now) == 0 && now.st_size == 0);
}

int main(void) {
    reading_and_writing();
    much_at_once();
    names();
    open_without_a_name();
    times();
    streams();
    CHECK(unlink("/data/file") == 0);
    if (!wrong) puts("all as it should be");
    return wrong != 0;
}
