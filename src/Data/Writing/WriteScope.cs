using Fleet.Contracts;
using Fleet.Data.Entities;

namespace Fleet.Data.Writing;

/// <summary>What a command works with: the context inside the batch's transaction, the counter, and the log.</summary>
public sealed class WriteScope(FleetDbContext db, long revision, long now)
{
    private readonly HashSet<Touched> _touched = [];
    private readonly HashSet<string> _vms = new(StringComparer.Ordinal);
    private readonly List<Action> _afterCommit = [];
    private readonly List<LoggedChange> _changes = [];

    public FleetDbContext Db { get; } = db;

    /// <summary>Server time of the batch, unix ms.</summary>
    public long Now { get; } = now;

    /// <summary>Revision of the newest change, this command's included.</summary>
    public long Revision { get; private set; } = revision;

    internal IReadOnlyCollection<Touched> Touched => _touched;

    internal IReadOnlyCollection<string> TouchedVms => _vms;

    internal bool Accepted { get; set; }

    internal IReadOnlyList<Action> AfterCommit => _afterCommit;

    internal IReadOnlyList<LoggedChange> Changes => _changes;

    /// <summary>Runs once the command is committed, before its caller is answered; never where it is not. For counting: quick, and must not throw.</summary>
    public void OnCommitted(Action action) => _afterCommit.Add(action);

    /// <summary>Every number from here on is of this store epoch.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It is not above the present one.</exception>
    internal void BeginStoreEpoch(long epoch)
    {
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(StoreEpochs.FloorOf(epoch), Revision);
        Revision = StoreEpochs.FloorOf(epoch);
    }

    /// <summary>Adds a row to the change log and returns its revision, for the numbers this change sets.</summary>
    public long Change(string kind, string resource, string actor, string? reason = null, string? payload = null) =>
        Change(kind, resource, actor, reason, _ => payload);

    /// <summary>As above, for a payload that contains the revision.</summary>
    public long Change(string kind, string resource, string actor, string? reason, Func<long, string?> payload)
    {
        Revision++;
        Db.Changes.Add(new ChangeRow
        {
            Revision = Revision,
            Kind = kind,
            Resource = resource,
            Actor = actor,
            Reason = reason,
            Payload = payload(Revision),
            At = Now,
        });
        _changes.Add(new LoggedChange(Revision, kind, resource, actor));
        return Revision;
    }

    /// <summary>
    /// The host is to be told about the VM once this is committed; whom else it concerns (<see cref="Placement.Concerned"/>) is told as well.
    /// A VM without a host is still named, for their sake.
    /// </summary>
    public void Touch(string? host, string vm)
    {
        _vms.Add(vm);
        if (host is not null)
        {
            _touched.Add(new Touched(host, vm));
        }
    }
}

/// <summary>What the program's log says of a change: neither its reason nor its payload, which hold what people and agents wrote.</summary>
internal readonly record struct LoggedChange(long Revision, string Kind, string Resource, string Actor);
