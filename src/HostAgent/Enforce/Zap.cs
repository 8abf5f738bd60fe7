using Fleet.HostAgent.Attach;
using Fleet.Linux;

namespace Fleet.HostAgent.Enforce;

/// <summary>The zap of one region's pages, by the first method that the table allows and that somebody can carry out here and now.</summary>
internal sealed class Zap
{
    private readonly Attachment _attachment;
    private readonly ZapBudget _budget;
    private readonly Queue<ZapMethod> _methods;

    public Zap(Attachment attachment, GuestRegion region, EnforcementPolicy policy, EnforcementTable table, ZapBudget budget)
    {
        (_attachment, _budget) = (attachment, budget);
        var memory = EnforcementCell.ClassOf(region.Backing);
        var able = table.Methods(memory, policy)
            .Where(method => !attachment.WholeRegions || new EnforcementCell(memory, method, policy).AllowsWholeRegion)
            .ToList();
        _methods = new Queue<ZapMethod>(able.Where(method => method == ZapMethod.PunchHole || attachment.Zapper?.Can(method) == true));
        WhyNot = _methods.Count > 0 ? null : able.Count > 0 ? Enforcer.NoZapper : Enforcer.Unsupported;
    }

    /// <summary>A stable reason why there is no method; null when there is one.</summary>
    public string? WhyNot { get; }

    /// <summary>Afterwards the parts are registered, and their entries empty or marked, unless somebody has filled one meanwhile.</summary>
    /// <exception cref="LinuxException">No method worked; this is how the last one failed.</exception>
    public void Carry(IReadOnlyList<HostRange> parts)
    {
        while (true)
        {
            try
            {
                Carry(_methods.Peek(), parts);
                return;
            }
            catch (LinuxException) when (_methods.Count > 1)
            {
                // Such as a memfd that is sealed against holes: the next method may do.
                _methods.Dequeue();
            }
        }
    }

    private void Carry(ZapMethod method, IReadOnlyList<HostRange> parts)
    {
        if (method == ZapMethod.PunchHole)
        {
            foreach (var part in parts)
            {
                part.Region.Backing.File!.PunchHole(part.BackingOffset, part.Bytes);
            }

            return;
        }

        (_attachment.Zapper ?? throw new LinuxException("zap", Errno.ENOTCONN)).Zap(method, parts, _budget);
        if (method == ZapMethod.Remap)
        {
            // The registration stayed with the mapping that is gone; the markers came along.
            Registration.Register(_attachment, parts);
        }
    }
}
