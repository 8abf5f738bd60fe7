// The first process of a Linux guest in the lab, which commands reach over its console. Each answer is a line that begins with "guest: ".
//
//   own NAME handler      starts a program that maps memory and tells where one of its pages is in the guest's physical memory.
//   own NAME plain        With a handler it lives on after a SIGBUS; a plain one does not.
//   touch NAME            the program reads that page, and the page after it
//   alive                 answers, with the number of the last command
//   reboot
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { PAGE = 4096, MAPPED = 64 << 20 };

static volatile char *page;
static sigjmp_buf before_touch;

// What it calls is safe only because the one thread was in a plain load, in touch.
static void on_sigbus(int signal, siginfo_t *info, void *context) {
  (void)context;
  printf("guest: signal %d si_code %d at offset %ld of the page\n", signal, info->si_code, (long)((char *)info->si_addr - page));
  siglongjmp(before_touch, 1);
}

static const char *touch(const volatile char *from) {
  static char text[32];
  for (size_t at = 0; at < sizeof text - 1; at++) text[at] = from[at];
  return text;
}

static uint64_t physical(const volatile void *address) {
  uint64_t entry = 0;
  int fd = open("/proc/self/pagemap", O_RDONLY);
  if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)address / PAGE * 8) != 8) perror("pagemap");
  close(fd);
  return (entry & ((1ULL << 55) - 1)) * PAGE;
}

// The page is at the end of much memory: away from what firmware, the kernel's loader and a kernel that boots again use, which cannot handle a
// machine check.
static void owner(const char *name, int handler, int commands, int done) {
  char byte;
  char *memory = mmap(0, MAPPED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || madvise(memory, MAPPED, MADV_NOHUGEPAGE)) { perror("guest: mmap"); _exit(1); }
  for (size_t at = 0; at < MAPPED; at += PAGE) memory[at] = 1;
  page = memory + MAPPED - 2 * PAGE;
  snprintf((char *)page, PAGE, "%s-page", name);
  snprintf((char *)page + PAGE, PAGE, "%s-next", name);
  if (handler) {
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, 0);
  }
  printf("guest: %s owns 0x%llx\n", name, (unsigned long long)physical(page));
  for (;;) {
    if (write(done, "", 1) != 1 || read(commands, &byte, 1) != 1) _exit(0);
    if (!sigsetjmp(before_touch, 1)) printf("guest: %s reads %s\n", name, touch(page));
    printf("guest: %s goes on, and reads %s after it\n", name, touch(page + PAGE));
  }
}

static struct owner { char name[16]; int commands, done; pid_t pid; } owners[8];

static void await(struct owner *program) {
  char byte;
  int status = 0;
  if (read(program->done, &byte, 1) == 1) return;
  waitpid(program->pid, &status, 0);
  printf("guest: %s ended by signal %d\n", program->name, WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  program->pid = 0;
}

static void own(struct owner *program, const char *name, int handler) {
  int commands[2], done[2];
  if (pipe2(commands, O_CLOEXEC) || pipe2(done, O_CLOEXEC)) { perror("guest: pipe"); return; }
  snprintf(program->name, sizeof program->name, "%s", name);
  program->pid = fork();
  if (program->pid == 0) {
    close(commands[1]), close(done[0]);
    owner(name, handler, commands[0], done[1]);
  }
  close(commands[0]), close(done[1]);
  program->commands = commands[1], program->done = done[0];
  await(program);
}

int main(void) {
  char line[128], name[16], kind[16];
  struct termios terminal;
  mkdir("/proc", 0755);
  if (mount("proc", "/proc", "proc", 0, 0)) perror("guest: mount");
  setvbuf(stdout, 0, _IOLBF, 1024);
  if (!tcgetattr(0, &terminal)) { terminal.c_lflag &= ~ECHO; tcsetattr(0, TCSANOW, &terminal); }
  puts("guest: ready");
  for (int count = 1; fgets(line, sizeof line, stdin); count++) {
    size_t at = 0;
    if (sscanf(line, "own %15s %15s", name, kind) == 2) {
      while (at < 8 && owners[at].pid) at++;
      if (at < 8) own(&owners[at], name, !strcmp(kind, "handler"));
    } else if (sscanf(line, "touch %15s", name) == 1) {
      while (at < 8 && (!owners[at].pid || strcmp(owners[at].name, name))) at++;
      if (at == 8) puts("guest: no such program");
      else if (write(owners[at].commands, "", 1) == 1) await(&owners[at]);
    } else if (!strcmp(line, "alive\n")) {
      printf("guest: alive after %d commands\n", count);
    } else if (!strcmp(line, "reboot\n")) {
      reboot(RB_AUTOBOOT);
    }
  }
  return 0;
}
