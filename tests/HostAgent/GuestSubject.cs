using System.Diagnostics;
using System.Globalization;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux;
using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>
/// A process with guest memory of one kind and a userfaultfd, which does what it is told with pointers and system calls of its own: what a
/// vCPU or a VMM would do. A poisoned page is SIGBUS there, and said so.
/// </summary>
internal sealed class GuestSubject : IAsyncDisposable
{
    private const string Source = """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <linux/falloc.h>
        #include <linux/userfaultfd.h>
        #include <fcntl.h>
        #include <pthread.h>
        #include <setjmp.h>
        #include <signal.h>
        #include <stdint.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <sys/ioctl.h>
        #include <sys/mman.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        #ifndef UFFDIO_POISON
        struct uffdio_poison { struct uffdio_range range; __u64 mode; __s64 updated; };
        #define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
        #endif
        #ifndef MADV_COLLAPSE
        #define MADV_COLLAPSE 25
        #endif
        static __thread sigjmp_buf back;
        static __thread int code;
        static void on_sigbus(int s, siginfo_t *i, void *c) { code = i->si_code; siglongjmp(back, 1); }
        static int fd = -1, uffd, huge;
        static size_t page, bytes;
        static char *memory, *other;
        static void *map(void *at, size_t offset, size_t length, int fixed) {
          int flags = fd >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB | (21 << 26) : 0);
          return mmap(at, length, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE | (fixed ? MAP_FIXED : 0), fd, fd >= 0 ? offset : 0);
        }
        /* Room at a border of 2 MiB: what is mapped there can be collapsed. */
        static char *aligned(void) {
          char *room = mmap(0, bytes + (4 << 20), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
          return (char *)(((uintptr_t)room + (2 << 20)) & ~(uintptr_t)((2 << 20) - 1));
        }
        static int reg(void *at, size_t length) {
          struct uffdio_register r = { { (uintptr_t)at, length }, UFFDIO_REGISTER_MODE_MISSING | (fd >= 0 ? 4 : 0), 0 };
          return ioctl(uffd, UFFDIO_REGISTER, &r);
        }
        static int poison(void *at, size_t length) {
          struct uffdio_poison p = { { (uintptr_t)at, length }, 0, 0 };
          return ioctl(uffd, UFFDIO_POISON, &p);
        }
        /* As MemoryMapping.Replace: fresh memory takes the place of the old in one step, marked or not. */
        static int replace(char *at, size_t length, int marked) {
          char *fresh = map(0, at - memory, length, 0);
          if (fresh == MAP_FAILED || (marked && (reg(fresh, length) || poison(fresh, length)))) return -1;
          return mremap(fresh, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at ? 0 : -1;
        }
        struct work { pthread_t thread; int parity; unsigned seed; long operations, wrong, faults; unsigned char *expected; };
        static void *work(void *argument) {
          struct work *w = argument;
          for (long i = 0; i < w->operations; i++) {
            size_t pages = bytes / page, n = (rand_r(&w->seed) % (pages / 2)) * 2 + w->parity;
            volatile unsigned char *at = (unsigned char *)memory + n * page + 8;
            if (sigsetjmp(back, 1)) { w->faults++; continue; }
            if (*at != w->expected[n]) w->wrong++;
            *at = w->expected[n] = (unsigned char)(rand_r(&w->seed) % 255 + 1);
          }
          return 0;
        }
        int main(int argc, char **argv) {
          char line[256], verb[32];
          huge = !strncmp(argv[1], "hugetlb", 7);
          page = huge ? 2 << 20 : 4096;
          bytes = strtoul(argv[2], 0, 10);
          if (!strcmp(argv[1], "memfd") || !strcmp(argv[1], "hugetlb")) {
            fd = memfd_create("subject", huge ? MFD_HUGETLB | (21u << 26) : 0);
            if (fd < 0 || ftruncate(fd, bytes)) { perror("memfd"); return 1; }
          }
          memory = map(aligned(), 0, bytes, 1);
          other = fd >= 0 ? map(aligned(), 0, bytes, 1) : 0;
          if (memory == MAP_FAILED || other == MAP_FAILED) { perror("mmap"); return 1; }
          uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
          struct uffdio_api api = { UFFD_API, strtoul(argv[3], 0, 10), 0 };
          if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api)) { perror("userfaultfd"); return 1; }
          struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER };
          sigaction(SIGBUS, &action, 0);
          printf("%d %d %lu %lu %lu\n", uffd, fd, (unsigned long)memory, (unsigned long)bytes, (unsigned long)page);
          fflush(stdout);
          while (fgets(line, sizeof line, stdin)) {
            long n = 0, count = 1, value = 0;
            int result = 0;
            sscanf(line, "%31s %ld %ld %ld", verb, &n, &count, &value);
            char *at = memory + n * page;
            size_t length = count * page;
            errno = 0;
            if (!strcmp(verb, "read") || !strcmp(verb, "write")) {
              volatile char *address = at + 100;
              if (sigsetjmp(back, 1)) printf("sigbus %d\n", code);
              else if (*verb == 'r') { int found = (unsigned char)*address; printf("data %d\n", found); }
              else { *address = (char)count; printf("ok\n"); }
            } else if (!strcmp(verb, "work")) {
              struct work both[2];
              unsigned char *expected = calloc(bytes / page, 1);
              for (int i = 0; i < 2; i++) {
                both[i] = (struct work){ .parity = i, .seed = value + i, .operations = n, .expected = expected };
                pthread_create(&both[i].thread, 0, work, &both[i]);
              }
              for (int i = 0; i < 2; i++) pthread_join(both[i].thread, 0);
              printf("wrong %ld sigbus %ld\n", both[0].wrong + both[1].wrong, both[0].faults + both[1].faults);
            } else {
              if (!strcmp(verb, "fill")) for (size_t i = 0; i < length; i += page) memset(at + i, value, 4096);
              else if (!strcmp(verb, "other")) memset(other + n * page, value, 4096);
              else if (!strcmp(verb, "dont-need")) result = madvise(at, length, MADV_DONTNEED);
              else if (!strcmp(verb, "punch-hole")) result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, n * page, length);
              else if (!strcmp(verb, "collapse")) result = madvise(memory, 2 << 20, MADV_COLLAPSE);
              else if (!strcmp(verb, "other-collapse")) result = madvise(other, 2 << 20, MADV_COLLAPSE);
              else if (!strcmp(verb, "map-anew")) result = munmap(at, length) || map(at, n * page, length, 1) != at ? -1 : 0;
              else if (!strcmp(verb, "replace")) result = replace(at, length, 0);
              else if (!strcmp(verb, "remap")) result = replace(at, length, 1);
              else { result = -1; errno = ENOSYS; }
              if (result) printf("errno %d\n", errno); else printf("ok\n");
            }
            fflush(stdout);
          }
          return 0;
        }
        """;

    private readonly Process _process;

    private GuestSubject(Process process, long[] said)
    {
        _process = process;
        (Userfaultfd, File) = ((int)said[0], said[1] < 0 ? null : (int)said[1]);
        (Address, Bytes, PageBytes) = ((ulong)said[2], said[3], (int)said[4]);
    }

    public int Pid => _process.Id;

    /// <summary>The userfaultfd's number there.</summary>
    public int Userfaultfd { get; }

    /// <summary>The memfd's number there; null for private memory.</summary>
    public int? File { get; }

    public ulong Address { get; }

    public long Bytes { get; }

    public int PageBytes { get; }

    /// <param name="features">Of its userfaultfd's handshake, besides those that the memory needs.</param>
    public static async Task<GuestSubject> StartAsync(MemoryClass memory, long bytes, UffdFeatures features = UffdFeatures.None)
    {
        var needed = features | UffdFeatures.Poison | memory switch
        {
            MemoryClass.Memfd => UffdFeatures.MissingShmem | UffdFeatures.MinorShmem,
            MemoryClass.Hugetlb => UffdFeatures.MissingHugetlbfs | UffdFeatures.MinorHugetlbfs,
            MemoryClass.HugetlbPrivate => UffdFeatures.MissingHugetlbfs,
            _ => UffdFeatures.None,
        };
        var process = System.Diagnostics.Process.Start(new ProcessStartInfo(
            await SubjectProgram.CompileAsync(Source), [EnforcementCell.NameOf(memory), bytes.ToString(CultureInfo.InvariantCulture), ((ulong)needed).ToString(CultureInfo.InvariantCulture)])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        })!;
        var line = await process.StandardOutput.ReadLineAsync(TestContext.Current.CancellationToken);
        Assert.False(string.IsNullOrEmpty(line), $"the subject did not start with {memory}");
        return new GuestSubject(process, [.. line.Split(' ').Select(number => long.Parse(number, CultureInfo.InvariantCulture))]);
    }

    /// <summary>What it answers; an access that waits for somebody ends with the test's deadline.</summary>
    public Task<string> AskAsync(string command)
    {
        _process.StandardInput.WriteLine(command);
        _process.StandardInput.Flush();
        return AnswerAsync();
    }

    public async Task DoAsync(string command) => Assert.Equal("ok", await AskAsync(command));

    /// <summary>The same, for whoever cannot wait.</summary>
    public string Ask(string command)
    {
        _process.StandardInput.WriteLine(command);
        _process.StandardInput.Flush();
        return _process.StandardOutput.ReadLine() ?? "ended";
    }

    /// <summary>Reads a page: its answer, or <c>event</c> when the access waits for the userfaultfd, which the caller must then resolve.</summary>
    public async Task<(string Outcome, Task<string> Answer)> ReadAsync(long page)
    {
        var answer = AskAsync($"read {page}");
        while (!answer.IsCompleted)
        {
            if (HasPendingFault())
            {
                return ("event", answer);
            }

            await Task.WhenAny(answer, Task.Delay(2, TestContext.Current.CancellationToken)); // allowed: polls for an event or an answer, whichever comes
        }

        return (await answer, answer);
    }

    /// <summary>Attached as an agent would, from outside, with the process itself as the one who zaps.</summary>
    public Attachment Attach()
    {
        var pidfd = Pidfd.Open(Pid);
        var backing = File is { } number ? GuestBacking.OfFile(new MemoryFile(pidfd.GetFd(number)), number, 0) : GuestBacking.Anonymous(PageBytes);
        return new Attachment(
            "vm-1", 1, ProcessIdentity.Of(Pid)!, pidfd, new UserfaultfdHandle(pidfd.GetFd(Userfaultfd)), Userfaultfd,
            new GuestLayout([new GuestRegion(0, Bytes, Address, PageBytes, backing)])) { Zapper = new Zapper(this) };
    }

    private bool HasPendingFault() => System.IO.File.ReadLines($"/proc/{Pid}/fdinfo/{Userfaultfd}")
        .Any(line => line.StartsWith("pending:", StringComparison.Ordinal) && line.AsSpan(8).Trim() is not "0");

    private sealed class Zapper(GuestSubject subject) : IZapper
    {
        public bool Can(ZapMethod method) => method != ZapMethod.PunchHole;

        public void Zap(ZapMethod method, IReadOnlyList<HostRange> ranges, ZapBudget budget)
        {
            foreach (var range in ranges)
            {
                var answer = subject.Ask($"{EnforcementCell.NameOf(method)} {(long)range.Offset / subject.PageBytes} {range.Bytes / subject.PageBytes}");
                if (answer != "ok")
                {
                    throw new LinuxException($"zap: {answer}", Errno.EIO);
                }
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync();
        _process.Dispose();
    }

    private async Task<string> AnswerAsync() =>
        await _process.StandardOutput.ReadLineAsync().WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken) ?? "ended";
}

/// <summary>The compiled subject, made when it is first needed and thrown away with the tests.</summary>
public sealed class SubjectProgram : IDisposable
{
    private static readonly Lock Lock = new();
    private static DirectoryInfo? _folder;
    private static Task<string>? _program;

    internal static Task<string> CompileAsync(string source)
    {
        lock (Lock)
        {
            _folder ??= Directory.CreateTempSubdirectory("fleet-subject-");
            return _program ??= CHelper.CompileAsync(source, _folder, "-O1", "-pthread");
        }
    }

    public void Dispose() => _folder?.Delete(recursive: true);
}
