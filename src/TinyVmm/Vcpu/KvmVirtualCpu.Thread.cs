using Fleet.Linux.Kvm;

namespace Fleet.TinyVmm.Vcpu;

/// <summary>The vCPU's thread: into the guest and out of it.</summary>
public sealed partial class KvmVirtualCpu
{
    // A real-time signal that neither glibc (32, 33) nor the runtime (34) uses: it takes the thread out of KVM_RUN.
    private const int KickSignal = 40;

    private static readonly ulong OwnSignals = ThreadSignals.Bit(ThreadSignals.SIGBUS) | ThreadSignals.Bit(KickSignal);

    private volatile int _thread;

    // A signal that was sent before KVM_RUN stays pending and ends it at once: no request is missed. One before the thread's
    // number is known is not needed: the thread looks for requests before it first enters the guest.
    protected override void Interrupt()
    {
        if (_thread is not 0 and var thread)
        {
            ThreadSignals.Send(thread, KickSignal);
        }
    }

    protected override void OnThreadStarted()
    {
        ThreadSignals.Block(OwnSignals);
        _thread = ThreadSignals.CurrentThread;
    }

    protected override void OnThreadEnding() => _thread = 0;

    protected override bool Step() => _vcpu.Run() ? HandleExit() : TakeSignals();
}
