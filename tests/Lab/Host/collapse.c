// Asks the kernel to make a huge page of guest memory (MADV_COLLAPSE, Linux 6.1), as khugepaged or a VMM would.
//   collapse own PID ADDRESS BYTES          in the process's own mapping (process_madvise)
//   collapse other PID FD OFFSET BYTES      through another mapping of its descriptor
// Prints "collapsed", or "refused: REASON".
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define COLLAPSE 25
#define HUGE_PAGE (2UL << 20)

static int say(long result) {
  if (result < 0) printf("refused: %s\n", strerror(errno));
  else puts("collapsed");
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 5 && !strcmp(argv[1], "own")) {
    int pidfd = syscall(SYS_pidfd_open, atoi(argv[2]), 0);
    struct iovec range = {(void *)strtoul(argv[3], 0, 0), strtoul(argv[4], 0, 0)};
    if (pidfd < 0) { perror("pidfd_open"); return 1; }
    return say(syscall(SYS_process_madvise, pidfd, &range, 1, COLLAPSE, 0));
  }
  if (argc == 6 && !strcmp(argv[1], "other")) {
    char path[64];
    unsigned long bytes = strtoul(argv[5], 0, 0);
    snprintf(path, sizeof path, "/proc/%s/fd/%s", argv[2], argv[3]);
    int fd = open(path, O_RDWR);
    // A huge page needs an address that is aligned like the file's offset.
    char *room = mmap(0, bytes + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *place = (char *)(((unsigned long)room + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    if (fd < 0 || mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, strtoul(argv[4], 0, 0)) == MAP_FAILED) { perror(path); return 1; }
    return say(madvise(place, bytes, COLLAPSE));
  }
  fputs("collapse own PID ADDRESS BYTES | collapse other PID FD OFFSET BYTES\n", stderr);
  return 2;
}
