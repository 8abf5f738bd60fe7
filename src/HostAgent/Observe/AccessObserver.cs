using Fleet.Contracts;
using Fleet.Contracts.Hits;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Detect;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Options;
using Fleet.Linux;
using Fleet.Linux.Processes;
using Fleet.Linux.Tracing;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Fleet.HostAgent.Observe;

/// <summary>
/// Sees accesses to armed pages, by any VMM and without its help: vCPUs by kvm:kvm_page_fault, the VMM's own threads by
/// exceptions:page_fault_user, both filtered in the kernel to the armed pages. Guest frames mean something only with the process: each event is
/// given to a VMM by its thread. Where the kernel cannot, this does nothing, and what VMMs say is all there is.
/// </summary>
public sealed partial class AccessObserver(IOptions<AgentOptions> options, TimeProvider time, ILogger<AccessObserver> logger) : IDisposable
{
    // What a guest can make the agent read: so much, so often.
    private static readonly TimeSpan Window = TimeSpan.FromMilliseconds(250);
    private const int BufferKibibytes = 64;
    private const int ReadsAWindow = 64;

    private readonly Lock _lock = new();
    private readonly EventSignal _stop = new();
    private readonly Dictionary<Attachment, ObservedVmm> _vmms = [];
    private readonly HashSet<int> _strangers = [];
    private readonly List<Attachment> _ended = [];
    private readonly bool _isIntel = Directory.Exists("/sys/module/kvm_intel");
    private HotPages? _hot;
    private TraceFs? _fs;
    private TraceInstance? _instance;
    private TracePipe? _pipe;
    private Thread? _thread;
    private (string? Kvm, string? User) _filters;
    private long _unattributed;

    public HitMerge<Attachment> Merge { get; } = new(time);

    /// <summary>Accesses that the kernel recorded and that are in no hit: overwritten, counted only, or of a thread that is gone. Since the start.</summary>
    public long Dropped
    {
        get
        {
            lock (_lock)
            {
                return _unattributed + (_instance?.Count().Lost ?? 0) + (_hot?.Counted ?? 0);
            }
        }
    }

    /// <summary>Once. Never throws: without it observation is the VMMs'.</summary>
    public void Start()
    {
        lock (_lock)
        {
            try
            {
                _fs = TraceFs.Open();
                _instance = _fs.Create(MemoryFailureWatch.Owner(options.Value), "accesses");
                _instance.SetBufferSize(BufferKibibytes);
                _instance.WakeAtOnce();
                _pipe = _instance.OpenPipe();
                _hot = new HotPages(_fs.Create(MemoryFailureWatch.Owner(options.Value), "hot"), time);
                Rewrite();
                _thread = new Thread(Run) { IsBackground = true, Name = "accesses" };
                _thread.Start();
            }
            catch (LinuxException exception)
            {
                LogNone(exception.Message);
                Close();
            }
        }
    }

    /// <summary>Observes these frames of the VMM, and no others, from now on. Call it before they are armed, so that no access is missed.</summary>
    public void Observe(Attachment attachment, FrameSet frames)
    {
        lock (_lock)
        {
            if (!_vmms.TryGetValue(attachment, out var vmm))
            {
                _vmms[attachment] = vmm = new ObservedVmm(attachment);
                vmm.LookAtThreads();
            }

            if (!vmm.Frames.Ranges.SequenceEqual(frames.Ranges))
            {
                vmm.Frames = frames;
                TryRewrite();
            }
        }
    }

    /// <summary>The VMM is let go. What it did is taken in first.</summary>
    public void Forget(Attachment attachment)
    {
        lock (_lock)
        {
            Drain();
            if (_vmms.Remove(attachment))
            {
                _ended.Add(attachment);
                TryRewrite();
            }
        }
    }

    /// <summary>Takes in what the kernel has recorded up to now.</summary>
    public void Drain()
    {
        lock (_lock)
        {
            if (_pipe is null)
            {
                return;
            }

            var hot = false;
            foreach (var line in _pipe.ReadLines(ReadsAWindow))
            {
                hot |= TraceLine.Parse(line) is { } parsed && Take(parsed);
            }

            if (hot)
            {
                TryRewrite(hotFirst: true);
            }
        }
    }

    /// <summary>Once in a while: pages that were too hot are observed again, and threads looked at.</summary>
    public void Refresh()
    {
        lock (_lock)
        {
            _strangers.Clear();
            _ended.RemoveAll(Merge.Forget);
            foreach (var vmm in _vmms.Values)
            {
                vmm.LookAtThreads();
            }

            if (_hot?.Cool() == true)
            {
                TryRewrite();
            }
        }
    }

    public void Dispose()
    {
        _stop.Set();
        _thread?.Join();
        Close();
        _stop.Dispose();
    }

    private void Run()
    {
        try
        {
            while (_pipe!.Wait(_stop))
            {
                Drain();
                if (_stop.Wait(Window))
                {
                    return;
                }
            }
        }
        catch (LinuxException exception)
        {
            LogNone(exception.Message);
        }
    }

    /// <returns>Whether the page has become too hot to observe access by access.</returns>
    private bool Take(TraceLine line)
    {
        if (line.Event == KvmPageFaultEvent.Name.Name && KvmPageFaultEvent.Parse(line.Fields) is { } guest)
        {
            return Find(line.ThreadId) is { } vmm && Take(vmm, FrameMath.FrameOf(guest.Address), guest.Access(_isIntel), guest.Vcpu, HitEvidences.KvmPageFault);
        }

        return line.Event == UserPageFaultEvent.Name.Name && UserPageFaultEvent.Parse(line.Fields) is { } user
            && Find(line.ThreadId) is { } owner && owner.Attachment.Layout.FrameAt(user.Address) is { } frame
            && Take(owner, frame, user.Access, null, HitEvidences.UserPageFault);
    }

    private bool Take(ObservedVmm vmm, long frame, PageAccess access, int? vcpu, string evidence)
    {
        // The filter may be wider than what is armed, and another VMM may have that address armed.
        if (!vmm.Frames.Contains(frame))
        {
            return false;
        }

        Merge.Saw(vmm.Attachment, frame, access switch
        {
            PageAccess.Write => HitAccesses.Write,
            PageAccess.Fetch => HitAccesses.Fetch,
            _ => HitAccesses.Read,
        }, vcpu, evidence);
        if (_hot!.Count(vmm.Attachment, frame))
        {
            LogHot(vmm.Attachment.Vm, frame);
            return true;
        }

        return false;
    }

    private ObservedVmm? Find(int thread)
    {
        if (_strangers.Contains(thread))
        {
            return null;
        }

        if (_vmms.Values.FirstOrDefault(vmm => vmm.Owns(thread)) is { } known)
        {
            return known;
        }

        if (ThreadGroups.Of(thread) is not { } pid)
        {
            // Whose it was cannot be told any more.
            _unattributed++;
            return null;
        }

        if (_vmms.Values.FirstOrDefault(vmm => vmm.Attachment.Vmm.Pid == pid) is not { } owner)
        {
            _strangers.Add(thread);
            return null;
        }

        owner.Add(thread);
        return owner;
    }

    private void TryRewrite(bool hotFirst = false)
    {
        try
        {
            Rewrite(hotFirst);
        }
        catch (LinuxException exception)
        {
            LogFilter(exception);
        }
    }

    /// <param name="hotFirst">
    /// A page goes over to those that are only counted. The new place sees it before the old one lets go of it: for a moment it is counted in both,
    /// and never in neither.
    /// </param>
    private void Rewrite(bool hotFirst = false)
    {
        if (_fs is null)
        {
            return;
        }

        // Guest frames of all VMMs in one filter: an instance for each would cost a buffer on every processor, and a look at every switch of threads.
        var kvm = TraceFilter.Of(KvmPageFaultEvent.AddressField, _vmms.Values.SelectMany(vmm => vmm.GuestRanges(_hot!.Of(vmm.Attachment))));
        var user = TraceFilter.Of(UserPageFaultEvent.AddressField, _vmms.Values.SelectMany(vmm => vmm.HostRanges(_hot!.Of(vmm.Attachment))));
        if (hotFirst)
        {
            _hot!.Watch(_fs, _vmms.Values);
        }

        _filters.Kvm = Apply(KvmPageFaultEvent.Name, kvm.Text, _filters.Kvm);
        _filters.User = Apply(UserPageFaultEvent.Name, user.Text, _filters.User);
        if (!hotFirst)
        {
            _hot!.Watch(_fs, _vmms.Values);
        }
    }

    private string? Apply(TraceEvent traceEvent, string? filter, string? present)
    {
        if (filter == present || !_fs!.HasEvent(traceEvent))
        {
            return present;
        }

        if (filter is null)
        {
            _instance!.Disable(traceEvent);
        }
        else
        {
            _instance!.Enable(traceEvent, filter);
        }

        return filter;
    }

    private void Close()
    {
        _hot?.Dispose();
        _pipe?.Dispose();
        _instance?.Dispose();
        _fs?.Dispose();
        (_hot, _pipe, _instance, _fs) = (null, null, null, null);
    }

    [LoggerMessage(1921, LogLevel.Information, "Accesses to poisoned pages are known from VMMs only: {Reason}")]
    private partial void LogNone(string reason);

    [LoggerMessage(1922, LogLevel.Error, "The kernel's filter could not be set; accesses to some armed pages may go unseen")]
    private partial void LogFilter(Exception exception);

    [LoggerMessage(1923, LogLevel.Warning, "VM {Vm} touches the poisoned page of frame {Frame} faster than accesses are read one by one; for a while they are only counted")]
    private partial void LogHot(string vm, long frame);
}
