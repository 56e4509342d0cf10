/* Clocks, and waiting for time and for input: "now" comes at once, nothing after it. */
#include <poll.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

static double seconds(clockid_t id) {
    struct timespec time = {0, 0};
    CHECK(clock_gettime(id, &time) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(void) {
    CHECK(seconds(CLOCK_REALTIME) > 1.7e9);
    double begun = seconds(CLOCK_MONOTONIC);
    struct timespec little = {0, 20000000};
    CHECK(nanosleep(&little, NULL) == 0);
    CHECK(seconds(CLOCK_MONOTONIC) - begun >= 0.02);
    CHECK(usleep(1000) == 0);
    struct timeval now;
    CHECK(gettimeofday(&now, NULL) == 0 && now.tv_sec > 1700000000);

    struct pollfd wanted[2] = {{0, POLLIN, 0}, {1, POLLOUT, 0}};
    CHECK(poll(wanted, 2, 0) >= 1 && (wanted[1].revents & POLLOUT));
    CHECK(poll(wanted, 1, 10000) == 1 && (wanted[0].revents & POLLIN));
    char text[8] = "";
    CHECK(read(0, text, sizeof text) == 3 && memcmp(text, "now", 3) == 0);
    CHECK(poll(wanted, 1, 10000) == 1 && wanted[0].revents != 0);
    CHECK(read(0, text, sizeof text) == 0);
    if (!wrong) puts("all as it should be");
    return wrong != 0;
}
