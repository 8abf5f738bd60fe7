using Fleet.Linux.Memory;
using Fleet.Linux.Processes;
using Fleet.Linux.Ptrace;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;
using static Fleet.Linux.Tests.PtraceState;

namespace Fleet.Linux.Tests;

/// <summary>System calls injected into processes that do not know of it. Real processes, which say at their end what they noticed.</summary>
[Collection(Collection)]
public sealed class PtraceTests
{
    private const int SIGRTMIN = 34;

    // Beside the number of system call stops after which a tracer dies: between the two steps before the first, and after the last.
    private const int InPrepare = -1;
    private const int InRestore = 3;
    private const int SIGCONT = 18;
    private const int SIGSTOP = 19;

    [Theory]
    [InlineData("ppoll")]
    [InlineData("poll")]
    [InlineData("futex")]
    [InlineData("sleep")]
    [InlineData("spin")]
    public async Task Run_ManyTimesInAStormOfSignals_LosesNoneAndChangesNothing(string mode)
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, mode);
        var process = ProcessIdentity.Of(target.Pid)!;
        using var pidfd = Pidfd.Open(process)!;
        var sent = 0;
        using var stop = new CancellationTokenSource();
        var storm = new Thread(() =>
        {
            // Real-time signals are queued one by one: each that is sent must arrive.
            for (; !stop.IsCancellationRequested; Volatile.Write(ref sent, sent + 1))
            {
                pidfd.SendSignal(SIGRTMIN);
                Thread.SpinWait(sent % 97 * 200);
            }
        });
        storm.Start();
        try
        {
            for (var i = 0; i < 300 || Volatile.Read(ref sent) <= 300; i++)
            {
                Assert.Equal(target.Pid, RemoteCall.Run(process, "getpid", SYS_getpid).Value);
            }
        }
        finally
        {
            await stop.CancelAsync();
            storm.Join();
        }

        Assert.Equal($"signals {sent} spurious 0 wrong 0", await target.FinishAsync());
    }

    [Theory]
    [InlineData("ppoll")]
    [InlineData("poll")]
    [InlineData("futex")]
    [InlineData("sleep")]
    [InlineData("spin")]
    public async Task Run_ThreadInASystemCallOrNot_IsNotNoticed(string mode)
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, mode);
        var process = ProcessIdentity.Of(target.Pid)!;

        for (var i = 0; i < 200; i++)
        {
            RemoteCall.Run(process, "getpid", SYS_getpid);
        }

        Assert.Equal("signals 0 spurious 0 wrong 0", await target.FinishAsync());
    }

    [Fact]
    public async Task Run_ProcessIsStopped_MakesTheCallAndLeavesItStopped()
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, "sleep");
        var process = ProcessIdentity.Of(target.Pid)!;
        using var pidfd = Pidfd.Open(process)!;
        pidfd.SendSignal(SIGSTOP);
        await UntilAsync(() => StateOf(target.Pid) == 'T');

        Assert.Equal(target.Pid, RemoteCall.Run(process, "getpid", SYS_getpid).Value);

        await UntilAsync(() => StateOf(target.Pid) == 'T');
        pidfd.SendSignal(SIGCONT);
        await UntilAsync(() => StateOf(target.Pid) is 'S' or 'R');
        Assert.Equal("signals 0 spurious 0 wrong 0", await target.FinishAsync());
    }

    [Theory]
    [InlineData("sleep")]
    [InlineData("spin")]
    public async Task Run_WhileItIsStoppedAndContinuedAllTheTime_EndsAsItWasToldLast(string mode)
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, mode);
        var process = ProcessIdentity.Of(target.Pid)!;
        using var pidfd = Pidfd.Open(process)!;
        using var stop = new CancellationTokenSource();
        var storm = Task.Run(() =>
        {
            for (var i = 0; !stop.IsCancellationRequested; i++)
            {
                pidfd.SendSignal(SIGSTOP);
                Thread.SpinWait(i % 31 * 400);
                pidfd.SendSignal(SIGCONT);
                Thread.SpinWait(i % 37 * 400);
            }
        }, TestContext.Current.CancellationToken);

        for (var i = 0; i < 300; i++)
        {
            Assert.Equal(target.Pid, RemoteCall.Run(process, "getpid", SYS_getpid).Value);
        }

        await stop.CancelAsync();
        await storm;
        await UntilAsync(() => StateOf(target.Pid) is 'S' or 'R');
        Assert.Equal("signals 0 spurious 0 wrong 0", (await target.FinishAsync()).Replace("spurious 1", "spurious 0", StringComparison.Ordinal));
    }

    /// <summary>
    /// The tracer dies at the worst moments. The kernel then lets the thread run on as it is (a thread's end is to it what a process's is); it
    /// makes its call and finds back by itself, with the signals blocked that it had blocked. A sleep ends early, with EINTR, as after any signal.
    /// </summary>
    [Theory]
    [Trait("Invariant", "I6")]
    [InlineData("ppoll", InPrepare)]
    [InlineData("ppoll", 0)]
    [InlineData("ppoll", 1)]
    [InlineData("ppoll", 2)]
    [InlineData("ppoll", InRestore)]
    [InlineData("futex", InPrepare)]
    [InlineData("futex", 1)]
    [InlineData("futex", InRestore)]
    [InlineData("sleep", 1)]
    [InlineData("spin", InPrepare)]
    [InlineData("spin", 0)]
    [InlineData("spin", 1)]
    [InlineData("spin", 2)]
    [InlineData("spin", InRestore)]
    public async Task TracerDies_AfterTheRegistersWereSet_TheThreadGoesOnAsIfNothingHadBeen(string mode, int systemCallStops)
    {
        const int rounds = 30;
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, mode);
        var process = ProcessIdentity.Of(target.Pid)!;
        using var pidfd = Pidfd.Open(process)!;
        for (var round = 0; round < rounds; round++)
        {
            var tracer = new Thread(() =>
            {
                var thread = TracedThread.Seize(target.Pid);
                thread.Interrupt();
                while (thread.Wait(null) is { IsEvent: false } stop)
                {
                    thread.Continue(stop.Signal);
                }

                var site = CallSite.Find(target.Pid);
                Assert.NotNull(site.SignalReturn);
                var stopped = new StoppedThread(thread, target.Pid, site);
                stopped.Between = systemCallStops == InPrepare ? Die : null;
                Until(() => stopped.Prepare(SYS_getpid, []));
                pidfd.SendSignal(SIGRTMIN);
                for (var i = 0; i < Math.Min(systemCallStops, 2); i++)
                {
                    stopped.RunToSystemCall();
                }

                if (systemCallStops == InRestore)
                {
                    stopped.Between = Die;
                    Until(stopped.Restore);
                }
            });
            tracer.Start();
            tracer.Join();
            await UntilAsync(() => TracerOf(target.Pid) == 0 && StateOf(target.Pid) is 'S' or 'R' && (BlockedIn(target.Pid) & ~(1UL << (SIGRTMIN - 1))) == 0);
        }

        var said = await target.FinishAsync();
        Assert.Equal($"signals {rounds} wrong 0", System.Text.RegularExpressions.Regex.Replace(said, "spurious [0-9]+ ", string.Empty));
        Assert.True(mode == "sleep" || said.Contains("spurious 0", StringComparison.Ordinal), said);
    }

    [Fact]
    public async Task Userfaultfd_IsMadeInTheTargetAndStaysOpenThere()
    {
        Requires.Userfaultfd();
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, "ppoll");
        var process = ProcessIdentity.Of(target.Pid)!;

        var call = RemoteCall.Userfaultfd(process, userModeOnly: true);

        using var pidfd = Pidfd.Open(process)!;
        using var copy = pidfd.GetFd((int)call.Value);
        Assert.True(UserfaultfdHandle.IsUserfaultfd(copy));
        Assert.Equal("anon_inode:[userfaultfd]", new FileInfo($"/proc/{target.Pid}/fd/{call.Value}").LinkTarget);
        Assert.True(call.Stopped > TimeSpan.Zero);
    }

    [Fact]
    public async Task Run_CallFails_SaysItsErrorAndTheTargetGoesOn()
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, "ppoll");
        var process = ProcessIdentity.Of(target.Pid)!;

        Assert.Equal(Errno.EINVAL, Assert.Throws<LinuxException>(() => RemoteCall.DontNeed(process, (1UL, 4096UL))).Errno);

        Assert.Equal("signals 0 spurious 0 wrong 0", await target.FinishAsync());
    }

    [Fact]
    [Trait("Invariant", "I6")]
    public async Task DontNeed_AnonymousMemoryOfAnotherProcess_IsZeroed()
    {
        const string source = """
            #include <stdio.h>
            #include <string.h>
            #include <sys/mman.h>
            #include <unistd.h>
            int main(void) {
              char *page = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
              memset(page, 7, 3 * 4096);
              printf("%d\n%lu\n", getpid(), (unsigned long)page); fflush(stdout);
              return getchar();
            }
            """;
        using var target = await CHelper.StartTraceableAsync(source);
        var address = ulong.Parse((await target.ReadLineAsync())!, System.Globalization.CultureInfo.InvariantCulture);
        Assert.Equal((Errno.None, (byte)7), Read(target.Pid, address));

        RemoteCall.DontNeed(ProcessIdentity.Of(target.Pid)!, (address, 4096UL), (address + 8192, 4096UL));
        Assert.Equal((Errno.None, (byte)7), Read(target.Pid, address + 4096));
        Assert.Equal((Errno.None, (byte)0), Read(target.Pid, address + 8192));

        Assert.Equal((Errno.None, (byte)0), Read(target.Pid, address));
    }

    private static (Errno, byte) Read(int pid, ulong address)
    {
        Span<byte> buffer = stackalloc byte[1];
        return (ProcessMemory.Read(pid, address, buffer), buffer[0]);
    }

    private static void Die() => throw new OperationCanceledException("the tracer is killed here");

    private static void Until(Action death)
    {
        try
        {
            death();
        }
        catch (OperationCanceledException)
        {
            // Its thread does no more with the target.
        }
    }

    private static ulong BlockedIn(int pid) => ulong.Parse(
        File.ReadLines($"/proc/{pid}/status").Single(line => line.StartsWith("SigBlk:", StringComparison.Ordinal)).AsSpan(7).Trim(),
        System.Globalization.NumberStyles.AllowHexSpecifier, System.Globalization.CultureInfo.InvariantCulture);
}
