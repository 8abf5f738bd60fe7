namespace Fleet.Linux.Tests;

/// <summary>The programs whose threads make injected calls.</summary>
internal static class PtraceTarget
{
    /// <summary>
    /// Waits or computes in the way that argv[1] says until the end of its input; then it says how many signals its handler saw, how many system
    /// calls ended with EINTR though no handler had run, and how often registers (general, floating point) did not hold what they had held.
    /// </summary>
    public const string CountsSignals = """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <linux/futex.h>
        #include <poll.h>
        #include <pthread.h>
        #include <signal.h>
        #include <stdio.h>
        #include <string.h>
        #include <sys/syscall.h>
        #include <time.h>
        #include <unistd.h>
        static volatile long seen;
        static long spurious, wrong;
        static void on_signal(int n) { (void)n; seen++; }
        static void check(long before, int result) {
          if (result < 0 && errno == EINTR && seen == before) spurious++;
          if (result < 0 && errno != EINTR && errno != ETIMEDOUT && errno != EAGAIN) wrong++;
        }
        static int ended(int milliseconds) {
          struct pollfd input = { 0, POLLIN, 0 };
          long before = seen;
          int n = poll(&input, 1, milliseconds);
          check(before, n);
          return n > 0;
        }
        static void spin(void) {
          unsigned long a = 1, b = 2, c = 3; double x = 1.5, y = 0.25;
          for (int i = 0; i < 20000; i++) {
            a = a * 6364136223846793005ul + 1442695040888963407ul; b ^= a; c += b >> 7;
            x = x * 1.0000001 + y; y = y * 0.9999999 + 0.0000001;
          }
          static unsigned long first_c; static double first_x;
          if (!first_c) { first_c = c; first_x = x; }
          if (c != first_c || memcmp(&x, &first_x, sizeof x)) wrong++;
        }
        int main(int argc, char **argv) {
          (void)argc;
          struct sigaction action = { .sa_handler = on_signal };
          sigset_t blocked, none;
          int word = 0;
          sigaction(SIGRTMIN, &action, 0);
          sigaction(SIGTRAP, &action, 0);
          sigemptyset(&none); sigemptyset(&blocked); sigaddset(&blocked, SIGRTMIN);
          if (!strcmp(argv[1], "ppoll")) sigprocmask(SIG_BLOCK, &blocked, 0);
          printf("%d\n", getpid()); fflush(stdout);
          while (!ended(!strcmp(argv[1], "poll") ? 50 : 0)) {
            struct timespec wait = { 0, 20 * 1000 * 1000 };
            struct pollfd input = { 0, POLLIN, 0 };
            long before = seen;
            if (!strcmp(argv[1], "ppoll")) check(before, ppoll(&input, 1, &wait, &none));
            else if (!strcmp(argv[1], "futex")) check(before, syscall(SYS_futex, &word, FUTEX_WAIT, 0, &wait, 0, 0));
            else if (!strcmp(argv[1], "sleep")) check(before, nanosleep(&wait, 0));
            else if (!strcmp(argv[1], "spin")) spin();
          }
          // What is still blocked here was not lost.
          sigprocmask(SIG_SETMASK, &none, 0);
          printf("signals %ld spurious %ld wrong %ld\n", seen, spurious, wrong);
          return 0;
        }
        """;

    /// <summary>Waits for a child made by vfork(2), which waits for the end of its input: a thread in state D, which cannot be stopped.</summary>
    public const string WaitsUninterruptibly = """
        #include <stdio.h>
        #include <sys/wait.h>
        #include <unistd.h>
        int main(void) {
          char byte;
          printf("%d\n", getpid()); fflush(stdout);
          if (vfork() == 0) { while (read(0, &byte, 1) > 0) { } _exit(0); }
          puts("went on"); fflush(stdout);
          return 0;
        }
        """;
}
