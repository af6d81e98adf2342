/* The smallest service: says when it ran its first instruction, then waits for a signal.
 *
 *     first FILE NAME [WORD]     appends "NAME NANOSECONDS\n" (CLOCK_MONOTONIC) to FILE; with WORD it ends at once
 */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **words)
{
    struct timespec now;
    char line[256];
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (count < 3)
        return 2;
    int file = open(words[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    int length = snprintf(line, sizeof line, "%s %lld\n", words[2], now.tv_sec * 1000000000LL + now.tv_nsec);
    if (file < 0 || write(file, line, length) != length)
        return 1;
    close(file);
    while (count == 3)
        pause();
    return 0;
}
