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
    private int _looksDue;

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

    /// <summary>
    /// Held by whoever answers an event, from the look at <see cref="Trapped"/> and <see cref="Healing"/> to the call, and while one of them
    /// changes: once a page is trapped no answer is under way that took it for an ordinary one, and would replace its marker. Nobody does
    /// more under it than that.
    /// </summary>
    public Lock Answering { get; } = new();

    /// <summary>Frames that may carry a marker or a trap now: journalled before any of them is armed.</summary>
    public FrameSet Trapped
    {
        get => _trapped;
        set
        {
            lock (Answering)
            {
                _trapped = value;
            }
        }
    }

    /// <summary>Accesses that wait because they could not be answered yet.</summary>
    public UnansweredFaults Unanswered { get; } = new();

    /// <summary>How it came to be attached: one of <see cref="AttachKinds"/>.</summary>
    public string Kind { get; init; } = AttachKinds.Handoff;

    /// <summary>Frames of <see cref="Trapped"/> that are becoming ordinary in this moment: an access to one gets a page, not a marker.</summary>
    public FrameSet Healing
    {
        get => _healing;
        set
        {
            lock (Answering)
            {
                _healing = value;
            }
        }
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

    /// <summary>Frames of memory errors that are the VM's, from before their report is spooled until the desired set has them.</summary>
    public FrameSet Reported { get; set; } = FrameSet.Empty;

    /// <summary>
    /// Frames of memory errors whose report is in the spool as the VM's, until the desired set has them. What only <see cref="Reported"/> has
    /// may have found the spool full, or its agent killed: it is reported when it is found again. Not in the journal: then a replay, which
    /// changes nothing.
    /// </summary>
    public FrameSet Spooled { get; set; } = FrameSet.Empty;

    /// <summary>Frames of memory errors that were spooled as the host's alone, while this VMM was sealed.</summary>
    public FrameSet ToldSealed { get; set; } = FrameSet.Empty;

    /// <summary>Markers that were lost and not yet told of, and when it was told last, as <see cref="TimeProvider.GetTimestamp"/>.</summary>
    public MarkerLoss? Loss { get; set; }

    public long? LossToldAt { get; set; }

    /// <summary>
    /// A REMOVE event lets the VMM go on and only then does the memory go (mm/userfaultfd.c, userfaultfd_remove): a look at once may come too early, and
    /// others follow in the next seconds. Until then an access meets the registration.
    /// </summary>
    public void LookAgain() => Volatile.Write(ref _looksDue, 3);

    /// <summary>Whether such a look is due; call once a second.</summary>
    public bool TakeLook() => Volatile.Read(ref _looksDue) > 0 && Interlocked.Decrement(ref _looksDue) >= 0;

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
