using Fleet.Api.Restore;
using Fleet.Api.Tests.Support;
using Fleet.Contracts.Vms;
using Fleet.Data.Entities;

namespace Fleet.Api.Tests;

/// <summary>B18: who owns a VM after a restore from backup, as a pure rule.</summary>
[Trait("Invariant", "I4")]
public sealed class RestoreOwnerTests
{
    private static readonly HashSet<string> Boots = ["boot-a", "boot-b"];

    [Fact]
    public void B18_LiveRight_OwnsWhateverTheDatabaseSays()
    {
        var ownership = Decide(Row("host-a", right: 20, isSealed: true, sealedTo: "boot-b:1:1"), Row("host-b", right: 15, isLive: true));

        Assert.Equal((null, "host-b", false), (ownership.Conflict, ownership.Owner, ownership.StartsAnew));
    }

    [Fact]
    public void B18_NoLiveRight_HighestRightOwns()
    {
        Assert.Equal("host-b", Decide(Row("host-a", right: 20), Row("host-b", right: 30)).Owner);
        Assert.Equal("host-a", Decide(Row("host-a", right: 40), Row("host-b", right: 30)).Owner);

        // Sealed towards a VMM of a host that has stated that it does not run it: the source goes on.
        Assert.Equal("host-a", Decide(Row("host-a", right: 40, isSealed: true, sealedTo: "boot-b:1:1"), Row("host-b")).Owner);
    }

    [Fact]
    public void B18_SealedForAPark_IsParked()
    {
        var ownership = Decide(Row("host-a", right: 40, isSealed: true), Row("host-b", right: 30));

        Assert.Equal((null, null, false), (ownership.Conflict, ownership.Owner, ownership.StartsAnew));
    }

    [Fact]
    public void B18_SealedTowardsAHostThatHasNotStated_CannotBeTold()
    {
        var ownership = Decide(Row("host-a", right: 40, isSealed: true, sealedTo: "boot-z:1:1"));

        Assert.Equal(QuarantineReasons.SealedToUnknownHost, ownership.Conflict);
    }

    [Fact]
    public void B18_TwoLiveRights_CannotBeTold() => Assert.Equal(
        QuarantineReasons.TwoLiveRights, Decide(Row("host-a", right: 40, isLive: true), Row("host-b", right: 41, isLive: true)).Conflict);

    [Fact]
    public void NobodyEverRanIt_StaysWhereTheDatabaseHasItAndMayBeStartedCold()
    {
        Assert.Equal(("host-a", true), Decide(Row("host-a"), Row("host-b")) is var placed ? (placed.Owner, placed.StartsAnew) : default);
        Assert.Equal((null, false), OwnerRules.Decide(Vm(null), [], Boots) is var parked ? (parked.Owner, parked.StartsAnew) : default);
    }

    /// <summary>A VMM outside the barrier holds no right, and its guest runs.</summary>
    [Fact]
    public void Unguarded_OwnsAndKeepsItsMemory()
    {
        var ownership = Decide(Row("host-b", isUnguarded: true), Row("host-a", right: 40));

        Assert.Equal((null, "host-b", 5, false), (ownership.Conflict, ownership.Owner, ownership.MemoryInstance, ownership.StartsAnew));
    }

    [Fact]
    public void MemoryInstance_OfTheOwner_IsTakenWhereItIsNewer()
    {
        Assert.Equal(9, Decide(Row("host-b", right: 30, memory: 9, isLive: true)).MemoryInstance);
        Assert.Equal(5, Decide(Row("host-b", right: 30, memory: 3, isLive: true)).MemoryInstance);

        // It knows of a reset after its right: nobody can have run the newer memory yet.
        Assert.True(Decide(Row("host-b", right: 30, memory: 9, rightMemory: 5)).StartsAnew);
    }

    [Fact]
    public void Release_NamesTheOwner_WithItsRightOrForAColdStart()
    {
        var (a, b) = (Row("host-a", right: 40, isLive: true), Row("host-b", right: 41, isLive: true));

        Assert.Equal(("host-a", false), OwnerRules.Release(Vm("host-c"), "host-a", a, [a, b]) is var given ? (given.Owner, given.StartsAnew) : default);
        Assert.Equal(("host-c", true), OwnerRules.Release(Vm("host-c"), "host-c", null, [a, b]) is var anew ? (anew.Owner, anew.StartsAnew) : default);
    }

    /// <summary>Of all that three hosts can say: a VM never leaves the quarantine to one host while its guest runs on another.</summary>
    [Fact]
    public void AnyStatements_NeverGiveAVmAwayFromItsGuest()
    {
        var sayings = new Func<string, StatementRow>[]
        {
            host => Row(host),
            host => Row(host, right: 20 + host[^1]),
            host => Row(host, right: 20 + host[^1], isLive: true),
            host => Row(host, right: 20 + host[^1], isSealed: true),
            host => Row(host, right: 20 + host[^1], isSealed: true, sealedTo: "boot-b:1:1"),
            host => Row(host, right: 20 + host[^1], isSealed: true, sealedTo: "boot-z:1:1"),
            host => Row(host, isUnguarded: true),
        };
        var cases = 0;
        foreach (var a in sayings)
        {
            foreach (var b in sayings)
            {
                foreach (var c in sayings)
                {
                    StatementRow[] statements = [a("host-a"), b("host-b"), c("host-c")];
                    var running = statements.Where(statement => statement.Live || statement.Unguarded).Select(statement => statement.Host).ToList();
                    var ownership = OwnerRules.Decide(Vm("host-a"), statements, Boots);
                    cases++;
                    Assert.True(ownership.Conflict is not null || running.Count == 0 || running is [var only] && only == ownership.Owner);
                    Assert.True(running.Count < 2 || ownership.Conflict is not null);
                    Assert.True(!ownership.StartsAnew || running.Count == 0);
                }
            }
        }

        Assert.Equal(343, cases);
    }

    private static Ownership Decide(params StatementRow[] statements) => OwnerRules.Decide(Vm("host-a"), statements, Boots);

    private static VmRow Vm(string? host) => new() { Id = "vm-1", Host = host, Memory = "[]", Attach = "{}", MemoryInstance = 5, Quarantined = true };

    private static StatementRow Row(
        string host, long? right = null, bool isLive = false, bool isSealed = false, string? sealedTo = null, bool isUnguarded = false, long memory = 5, long? rightMemory = null) => new()
    {
        Host = host,
        Vm = "vm-1",
        MemoryInstance = memory,
        Right = right,
        RightMemoryInstance = right is null ? null : rightMemory ?? memory,
        Live = isLive,
        Sealed = isSealed,
        SealedTo = sealedTo,
        Unguarded = isUnguarded,
    };
}
