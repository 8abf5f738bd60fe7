using Fleet.Contracts;
using Fleet.Contracts.Agents;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.HostAgent.Gate;
using Fleet.HostAgent.Reconcile;
using Fleet.HostAgent.Spool;
using Fleet.Linux;

namespace Fleet.HostAgent.Detect;

/// <summary>The one way of new poison into the spool: judged by the barrier, on disk with the VM, and with the host's fault behind it.</summary>
public sealed class PoisonIntake(GateKeeper gate, HostFaults faults, ReportSpool spool, WorkSet work)
{
    /// <summary>Call with the entry's gate held: where poison arose must not change between its judgement and its report.</summary>
    /// <param name="reports">Made for the origin that is passed; poison among them is taken.</param>
    /// <param name="found">What was behind it in this host's memory.</param>
    /// <returns>False when the spool is full: nothing was taken.</returns>
    /// <exception cref="IOException">The disk is full or failing: nothing was taken.</exception>
    public bool TryStore(
        VmEntry entry, Attachment attachment, Func<string?, IReadOnlyList<AgentReport>> reports, IReadOnlyList<HostFault> found, VmmWatermark? watermark = null)
    {
        var origin = gate.OriginOf(attachment);
        var made = reports(origin);
        var poison = made.Where(report => report.Kind == AgentReport.Poison).Select(report => new PageKey(report.Frame, report.Shift!.Value)).ToList();
        if (poison.Count > 0 && origin == PoisonOrigins.Incoming)
        {
            gate.TakeIncomingPoison(attachment, FrameSet.Of(poison));
        }
        else if (poison.Count > 0 && origin is null or PoisonOrigins.Held)
        {
            gate.TakeReportedPoison(attachment, FrameSet.Of(poison));
        }

        IReadOnlyList<AgentReport> all = [.. made, .. faults.New(found).Select(faults.Report)];
        if (all.Count == 0 && watermark is null)
        {
            return true;
        }

        // A seal may have waited for these.
        work.Add(entry.Vm);
        if (!spool.TryAppend(all, watermark))
        {
            return false;
        }

        // Only now: a report that was refused is made again.
        if (origin == PoisonOrigins.Sealed)
        {
            attachment.ToldSealed = attachment.ToldSealed.Union(FrameSet.Of(poison));
        }
        else
        {
            attachment.Spooled = attachment.Spooled.Union(FrameSet.Of(poison));
        }

        faults.Told(found);
        return true;
    }

    /// <summary>
    /// The host's faults behind pages that a VMM says have failed. One that carries a marker is no error of this host: its guest brought it
    /// along, and the VMM cannot tell. Call it before the reports are taken.
    /// </summary>
    public static IReadOnlyList<HostFault> Behind(Attachment attachment, IEnumerable<PageKey> pages) =>
        [.. pages.Distinct().SelectMany(page => Behind(attachment, page))];

    private static IEnumerable<HostFault> Behind(Attachment attachment, PageKey page)
    {
        var native = Look(attachment, page);
        if (native.Count > 0)
        {
            return native.Select(found => Of(attachment, found));
        }

        return attachment.Trapped.Overlaps(new FrameRange(page.Frame, page.Frame + FrameMath.FramesOf(page.Shift)))
            ? []
            : [new HostFault(null, new FaultPage(attachment.Vm, attachment.MemoryInstance, page.Frame, page.Shift))];
    }

    public static HostFault Of(Attachment attachment, NativePage native) =>
        new(native.PhysicalFrame, new FaultPage(attachment.Vm, attachment.MemoryInstance, native.Page.Frame, native.Page.Shift));

    private static IReadOnlyList<NativePage> Look(Attachment attachment, PageKey page)
    {
        try
        {
            return NativePages.At(attachment, page);
        }
        catch (LinuxException)
        {
            // The VMM has ended, or this kernel does not show it: what the VMM said stands.
            return [];
        }
    }
}
