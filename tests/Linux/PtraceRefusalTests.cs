using Fleet.Linux.Processes;
using Fleet.Linux.Ptrace;
using Fleet.Tests.Shared;
using static Fleet.Linux.Tests.PtraceState;

namespace Fleet.Linux.Tests;

/// <summary>Processes in which no call can be made: another's, gone, going, or not to be stopped. None is changed, and the reason is the true one.</summary>
[Collection(Collection)]
public sealed class PtraceRefusalTests
{
    private const int SIGKILL = 9;

    [Fact]
    public async Task Run_AnotherTracerHoldsIt_SaysSo()
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, "sleep");
        using var seized = new ManualResetEventSlim();
        using var end = new ManualResetEventSlim();
        var debugger = new Thread(() =>
        {
            TracedThread.Seize(target.Pid);
            seized.Set();
            end.Wait();
        });
        debugger.Start();
        seized.Wait(TestContext.Current.CancellationToken);
        var process = ProcessIdentity.Of(target.Pid)!;

        var refused = Assert.Throws<LinuxException>(() => RemoteCall.Run(process, "getpid", SYS_getpid));

        end.Set();
        debugger.Join();
        Assert.Equal(Errno.EBUSY, refused.Errno);
        Assert.Contains(" traces it", refused.Call, StringComparison.Ordinal);
        await UntilAsync(() => TracerOf(target.Pid) == 0);
        Assert.Equal(target.Pid, RemoteCall.Run(process, "getpid", SYS_getpid).Value);
    }

    [Fact]
    public async Task Run_ThreadCannotBeStopped_GivesUpAndLetsItGoUnchanged()
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.WaitsUninterruptibly);
        await UntilAsync(() => StateOf(target.Pid) == 'D');
        var process = ProcessIdentity.Of(target.Pid)!;

        Assert.Equal(Errno.ETIMEDOUT, Assert.Throws<LinuxException>(() => RemoteCall.Run(process, "getpid", SYS_getpid)).Errno);

        await UntilAsync(() => TracerOf(target.Pid) == 0);
        Assert.Equal("went on", await target.FinishAsync());
    }

    [Fact]
    public async Task Run_PidIsAnotherProcessByNow_IsNotTouched()
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, "sleep");
        var other = ProcessIdentity.Of(target.Pid)! with { StartTime = 1 };

        Assert.Equal(Errno.ESRCH, Assert.Throws<LinuxException>(() => RemoteCall.Run(other, "getpid", SYS_getpid)).Errno);

        await UntilAsync(() => TracerOf(target.Pid) == 0);
        Assert.Equal("signals 0 spurious 0 wrong 0", await target.FinishAsync());
    }

    [Fact]
    public async Task Seize_ThreadHasEnded_IsNotTakenForMissingRight()
    {
        // Ended and not yet waited for: the kernel refuses it with the error of a missing right.
        const string source = """
            #include <stdio.h>
            #include <unistd.h>
            int main(void) {
              int child = fork();
              if (child == 0) _exit(0);
              printf("%d\n", child); fflush(stdout);
              return getchar();
            }
            """;
        using var parent = await CHelper.StartAsync(source);
        var zombie = int.Parse(parent.Line, System.Globalization.CultureInfo.InvariantCulture);
        await UntilAsync(() => StateOf(zombie) == 'Z');

        Assert.Equal(Errno.ESRCH, Assert.Throws<LinuxException>(() => TracedThread.Seize(zombie)).Errno);
    }

    [Fact]
    public async Task Find_ProcessEndsAfterItsMappingsWereRead_SaysThatItEnded()
    {
        using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, "sleep");
        var code = new CodeSearch(target.Pid);
        await target.FinishAsync();

        Assert.Equal(Errno.ESRCH, Assert.Throws<LinuxException>(() => code.Find(MachineX64.Call)).Errno);
    }

    [Fact]
    public async Task Run_TargetIsKilledMeanwhile_SaysThatItEnded()
    {
        for (var round = 0; round < 20; round++)
        {
            using var target = await CHelper.StartTraceableAsync(PtraceTarget.CountsSignals, "spin");
            var process = ProcessIdentity.Of(target.Pid)!;
            using var pidfd = Pidfd.Open(process)!;
            using var began = new ManualResetEventSlim();
            var calls = Task.Run(() =>
            {
                while (true)
                {
                    began.Set();
                    RemoteCall.Run(process, "getpid", SYS_getpid);
                }
            }, TestContext.Current.CancellationToken);
            began.Wait(TestContext.Current.CancellationToken);
            Thread.SpinWait(round * 20_000);
            pidfd.SendSignal(SIGKILL);

            var ended = await Assert.ThrowsAsync<LinuxException>(() => calls.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken));

            Assert.Equal(Errno.ESRCH, ended.Errno);
        }
    }
}
