using Fleet.Contracts.Vms;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Reconcile;
using Fleet.Linux.Processes;
using Fleet.Linux.Userfaultfd;

namespace Fleet.HostAgent.Attach;

/// <summary>
/// One VMM process whose guest memory this agent enforces. All descriptors are copies: disposing lets go of the VMM and
/// changes nothing in it, so that what is armed stays armed (I6).
/// </summary>
public sealed class Attachment : IDisposable
{
    private volatile FrameSet _trapped = FrameSet.Empty;
    private volatile FrameSet _healing = FrameSet.Empty;

    public Attachment(string vm, long memoryInstance, ProcessIdentity vmm, Pidfd pidfd, UserfaultfdHandle userfaultfd, int userfaultfdNumber, GuestLayout layout)
    {
        Vm = vm;
        MemoryInstance = memoryInstance;
        Vmm = vmm;
        Process = pidfd;
        Userfaultfd = userfaultfd;
        UserfaultfdNumber = userfaultfdNumber;
        Layout = layout;
    }

    public string Vm { get; }

    /// <summary>The life of guest RAM that this process holds; only sets of the same memory instance change its arms.</summary>
    public long MemoryInstance { get; }

    public ProcessIdentity Vmm { get; }

    public Pidfd Process { get; }

    public UserfaultfdHandle Userfaultfd { get; }

    /// <summary>The userfaultfd's number in the VMM.</summary>
    public int UserfaultfdNumber { get; }

    public GuestLayout Layout { get; }

    /// <summary>Frames that may carry a marker or a trap now: journalled before any of them is armed.</summary>
    public FrameSet Trapped
    {
        get => _trapped;
        set => _trapped = value;
    }

    /// <summary>How it came to be attached: one of <see cref="AttachKinds"/>.</summary>
    public string Kind { get; init; } = AttachKinds.Handoff;

    /// <summary>Frames of <see cref="Trapped"/> that are becoming ordinary in this moment: an access to one gets a page, not a marker.</summary>
    public FrameSet Healing
    {
        get => _healing;
        set => _healing = value;
    }

    /// <summary>
    /// All of the guest's memory is registered, because ranges would have exhausted the mappings that a process may have: then the first
    /// access to any page is an event that the agent answers, and waits for an agent where none runs. Journalled before it is so.
    /// </summary>
    public bool WholeRegions { get; set; }

    /// <summary>
    /// Its userfaultfd answers accesses by the kernel (KVM, system calls) too. One with UFFD_USER_MODE_ONLY fails them: then no page that is not
    /// poisoned may be registered.
    /// </summary>
    public bool ServesKernelAccess { get; init; } = true;

    /// <summary>The VMM takes part in the barrier (GATE).</summary>
    public bool HasBarrier { get; init; }

    /// <summary>It said that its guest runs when this agent first saw it: without a right on disk nobody here knows what it has done.</summary>
    public bool MayHaveRun { get; set; }

    /// <summary>Migration for which this process was started; null once it used the permit, or when it was not.</summary>
    public string? IncomingFor { get; set; }

    /// <summary>Holes that the stream left: poisoned like the desired set, known there or not.</summary>
    public FrameSet Undelivered { get; set; } = FrameSet.Empty;

    /// <summary>Frames of memory errors that were spooled as the VM's, until the desired set has them.</summary>
    public FrameSet Reported { get; set; } = FrameSet.Empty;

    /// <summary>Frames of memory errors that were spooled as the host's alone, while this VMM was sealed.</summary>
    public FrameSet ToldSealed { get; set; } = FrameSet.Empty;

    /// <summary>Markers that were lost and not yet told of, and when it was told last, as <see cref="TimeProvider.GetTimestamp"/>.</summary>
    public MarkerLoss? Loss { get; set; }

    public long? LossToldAt { get; set; }

    /// <summary>Newest of its events that was stored while it is attached; 0 before the first.</summary>
    public long LastEvent { get; set; }

    /// <summary>The last look for devices; null before the first.</summary>
    public DeviceLook? Devices { get; set; }

    /// <summary>Does what only the VMM process can; null while nobody does.</summary>
    public IZapper? Zapper { get; set; }

    /// <summary>The line channel to the VMM; null while it is not connected.</summary>
    public VmmChannel? Channel { get; set; }

    public void Dispose()
    {
        Userfaultfd.Dispose();
        Process.Dispose();
        foreach (var region in Layout.Regions)
        {
            region.Backing.Dispose();
        }
    }
}
