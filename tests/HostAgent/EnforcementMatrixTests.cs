using System.Text;
using Fleet.Contracts;
using Fleet.HostAgent.Attach;
using Fleet.HostAgent.Enforce;
using Fleet.Linux.Userfaultfd;
using Fleet.Tests.Shared;

namespace Fleet.HostAgent.Tests;

/// <summary>
/// Every cell of the matrix against the kernel, with the guest's memory in a process of its own: what an access meets without the agent, what
/// it meets once the engine has armed the page by this cell alone, after a clear, and after each thing that a VMM, or whoever maps its
/// memory, can do to an armed page (FACTS 3).
/// </summary>
public sealed class EnforcementMatrixTests
{
    private const int Value = 119;
    private const string Marker = "sigbus";
    private const string Trap = "event";
    private const string Refused = ", refused";
    private const string Zero = "data 0";
    private const string Old = "data 119";

    /// <summary>What is done to a page; by whom, it says.</summary>
    private static readonly (string Name, string Command)[] Columns =
    [
        ("dont-need", "dont-need {0} 1"),
        ("punch-hole", "punch-hole {0} 1"),
        ("refill", "other {0} 1 7"),
        ("collapse", "collapse"),
        ("other's collapse", "other-collapse"),
        ("map anew", "map-anew {0} 1"),
    ];

    /// <summary>
    /// By memory, zap and policy: what the page reads without the agent's part; after a clear; then, with nobody to answer, after each of
    /// <see cref="Columns"/>, a dash where there is no such thing. <c>map anew</c> is open until the agent looks again: no event tells of it.
    /// </summary>
    private static readonly Dictionary<(MemoryClass, ZapMethod, EnforcementPolicy), string[]> Expected = new()
    {
        [(MemoryClass.Anonymous, ZapMethod.DontNeed, EnforcementPolicy.Marker)] = [Zero, Zero, Trap, "-", "-", Marker + Refused, "-", Zero],
        [(MemoryClass.Anonymous, ZapMethod.DontNeed, EnforcementPolicy.Trap)] = [Zero, Zero, Trap, "-", "-", Trap + Refused, "-", Zero],
        [(MemoryClass.Anonymous, ZapMethod.Remap, EnforcementPolicy.Marker)] = [Zero, Zero, Trap, "-", "-", Marker + Refused, "-", Zero],
        [(MemoryClass.Memfd, ZapMethod.PunchHole, EnforcementPolicy.Marker)] = [Zero, Zero, Trap, Marker, Marker, Marker + Refused, Marker + Refused, Zero],
        [(MemoryClass.Memfd, ZapMethod.PunchHole, EnforcementPolicy.Trap)] = [Zero, Zero, Trap, Trap, Trap, Trap + Refused, Trap + Refused, Zero],
        [(MemoryClass.Memfd, ZapMethod.DontNeed, EnforcementPolicy.Marker)] = [Old, Zero, Trap, Marker, Marker, Marker + Refused, Marker, Old],
        [(MemoryClass.Memfd, ZapMethod.DontNeed, EnforcementPolicy.Trap)] = [Old, Old, Trap, Trap, Trap, Trap + Refused, Trap, Old],
        [(MemoryClass.Memfd, ZapMethod.Remap, EnforcementPolicy.Marker)] = [Old, Zero, Trap, Marker, Marker, Marker + Refused, Marker, Old],
        [(MemoryClass.Hugetlb, ZapMethod.PunchHole, EnforcementPolicy.Marker)] = [Zero, Zero, Trap, Trap, Marker, "-", "-", Zero],
        [(MemoryClass.Hugetlb, ZapMethod.PunchHole, EnforcementPolicy.Trap)] = [Zero, Zero, Trap, Trap, Trap, "-", "-", Zero],
        [(MemoryClass.Hugetlb, ZapMethod.DontNeed, EnforcementPolicy.Marker)] = [Old, Zero, Trap, Trap, Marker, "-", "-", Old],
        [(MemoryClass.Hugetlb, ZapMethod.DontNeed, EnforcementPolicy.Trap)] = [Old, Old, Trap, Trap, Trap, "-", "-", Old],
        [(MemoryClass.Hugetlb, ZapMethod.Remap, EnforcementPolicy.Marker)] = [Old, Zero, Trap, Trap, Marker, "-", "-", Old],
        [(MemoryClass.HugetlbPrivate, ZapMethod.DontNeed, EnforcementPolicy.Marker)] = [Zero, Zero, Trap, "-", "-", "-", "-", Zero],
        [(MemoryClass.HugetlbPrivate, ZapMethod.DontNeed, EnforcementPolicy.Trap)] = [Zero, Zero, Trap, "-", "-", "-", "-", Zero],
        [(MemoryClass.HugetlbPrivate, ZapMethod.Remap, EnforcementPolicy.Marker)] = [Zero, Zero, Trap, "-", "-", "-", "-", Zero],
    };

    [Fact]
    [Trait("Invariant", "I1")]
    public async Task Matrix_EveryCell_IsEnforcedOrSaysWhyItCannotBe()
    {
        Requires.Userfaultfd();
        using var pages = await HugePages.ReserveAsync(8);
        var table = new StringBuilder();
        table.AppendLine(Line("memory", "zap", "policy", ["without agent", "cleared", .. Columns.Select(column => column.Name)]));
        var defects = new List<string>();
        foreach (var cell in EnforcementCell.All)
        {
            var names = (EnforcementCell.NameOf(cell.Memory), EnforcementCell.NameOf(cell.Zap), EnforcementCell.NameOf(cell.Policy));
            var row = cell.Impossible is null ? await WalkAsync(cell) : [$"cannot be: {cell.Impossible} (tried: {await TryImpossibleAsync(cell)})"];
            table.AppendLine(Line(names.Item1, names.Item2, names.Item3, row));
            if (Expected.GetValueOrDefault((cell.Memory, cell.Zap, cell.Policy)) is { } expected && !row.SequenceEqual(expected))
            {
                defects.Add($"{cell.Name}: expected {string.Join(" | ", expected)}");
            }
        }

        TestContext.Current.TestOutputHelper!.WriteLine(table.ToString());
        Assert.True(defects.Count == 0, $"{string.Join('\n', defects)}\n{table}");
        Assert.Equal(EnforcementCell.All.Count(cell => cell.Impossible is null), Expected.Count);
    }

    /// <summary>
    /// Collapse is refused because of the page alone, and not because nothing can be collapsed here. And it is why dont-need and remap of
    /// shared memory are never combined with a registration of the whole region: then it is not refused, and the old data is back without an event.
    /// </summary>
    [Theory]
    [InlineData(MemoryClass.Memfd, ZapMethod.PunchHole, "errno 16", Marker)]
    [InlineData(MemoryClass.Memfd, ZapMethod.DontNeed, "ok", Old)]
    [InlineData(MemoryClass.Anonymous, ZapMethod.DontNeed, "errno 22", Marker)]
    public async Task Collapse_WithTheWholeRegionRegistered_IsWhyTheEngineForbidsSomeZapsThere(MemoryClass memory, ZapMethod zap, string collapse, string outcome)
    {
        Requires.Userfaultfd();
        await using (var plain = await StartAsync(memory))
        {
            Assert.Equal("ok", await plain.AskAsync("collapse"));
        }

        await using var subject = await StartAsync(memory);
        using var attachment = subject.Attach();
        attachment.WholeRegions = true;
        attachment.Trapped = Frames(subject);
        var cell = new EnforcementCell(memory, zap, EnforcementPolicy.Marker);
        if (outcome == Marker)
        {
            Arm(attachment, Frames(subject), cell);
        }
        else
        {
            Assert.Equal(Enforcer.Unsupported, Assert.Single(Enforcer.Arm(attachment, Frames(subject), EnforcementPolicy.Marker, Only(cell))).Reason);
            await subject.DoAsync($"{EnforcementCell.NameOf(zap)} {Struck(subject)} 1");
            Assert.True(attachment.Userfaultfd.Poison(subject.Address + (ulong)(Struck(subject) * subject.PageBytes), FrameMath.FrameBytes).Succeeded);
            Assert.Equal(Frames(subject).Ranges, MarkerVerifier.FindMarked(attachment).Ranges);
        }

        Assert.Equal(collapse, await subject.AskAsync("collapse"));
        Assert.Equal(outcome, await OutcomeAsync(subject, attachment, cell));
    }

    /// <summary>What this host says of itself is what its kernel was just seen to do.</summary>
    [Fact]
    public void Table_OfThisHost_IsAbleInEveryCellThatCanBe()
    {
        Requires.Userfaultfd();

        Assert.Equal(
            EnforcementCell.All.Where(cell => cell.Impossible is null).Select(cell => cell.Name),
            EnforcementTable.OfThisHost.Cells.Where(state => state.IsAble).Select(state => state.Cell.Name));
        Assert.Equal([ZapMethod.PunchHole, ZapMethod.DontNeed, ZapMethod.Remap], EnforcementTable.OfThisHost.Methods(MemoryClass.Memfd, EnforcementPolicy.Marker));
        Assert.Equal([ZapMethod.DontNeed, ZapMethod.Remap], EnforcementTable.OfThisHost.Methods(MemoryClass.Anonymous, EnforcementPolicy.Marker));
    }

    private static async Task<string[]> WalkAsync(EnforcementCell cell)
    {
        var row = new List<string> { await WithoutAgentAsync(cell), await ArmAndClearAsync(cell) };
        foreach (var (_, command) in Columns)
        {
            row.Add(Exists(cell.Memory, command) ? await DoToArmedAsync(cell, command) : "-");
        }

        return [.. row];
    }

    private static bool Exists(MemoryClass memory, string command) => command.Split(' ')[0] switch
    {
        "punch-hole" or "other" => memory is MemoryClass.Memfd or MemoryClass.Hugetlb,
        "other-collapse" => memory == MemoryClass.Memfd,
        "collapse" => memory is MemoryClass.Memfd or MemoryClass.Anonymous,
        _ => true,
    };

    /// <summary>The negative control: zapped in the same way, and nobody has registered or marked anything.</summary>
    private static async Task<string> WithoutAgentAsync(EnforcementCell cell)
    {
        await using var subject = await StartAsync(cell.Memory);
        var verb = cell.Zap == ZapMethod.Remap ? "replace" : EnforcementCell.NameOf(cell.Zap);
        await subject.DoAsync($"{verb} {Struck(subject)} 1");
        return await subject.AskAsync($"read {Struck(subject)}");
    }

    private static async Task<string> ArmAndClearAsync(EnforcementCell cell)
    {
        await using var subject = await StartAsync(cell.Memory);
        using var attachment = subject.Attach();
        var frames = Frames(subject);
        Arm(attachment, frames, cell);

        // The neighbours are as they were, and once the guest touches the page it has its machine check: by the marker, or by the agent's answer.
        Assert.Equal(Old, await subject.AskAsync($"read {Struck(subject) - 1}"));
        Assert.Equal(Old, await subject.AskAsync($"read {Struck(subject) + 1}"));
        if (cell.Policy == EnforcementPolicy.Marker)
        {
            Assert.StartsWith(Marker, await subject.AskAsync($"read {Struck(subject)}"), StringComparison.Ordinal);
        }

        // Cleared, it is a page again for reading and writing; while it was trapped and never touched, with what its file holds.
        Assert.Empty(Enforcer.Disarm(attachment, frames));
        var cleared = await subject.AskAsync($"read {Struck(subject)}");
        await subject.DoAsync($"write {Struck(subject)} 9");
        Assert.Equal("data 9", await subject.AskAsync($"read {Struck(subject)}"));
        return cleared;
    }

    private static async Task<string> DoToArmedAsync(EnforcementCell cell, string command)
    {
        await using var subject = await StartAsync(cell.Memory);
        using var attachment = subject.Attach();
        var frames = Frames(subject);
        Arm(attachment, frames, cell);
        var done = await subject.AskAsync(string.Format(System.Globalization.CultureInfo.InvariantCulture, command, Struck(subject)));
        Assert.True(done == "ok" || command.Contains("collapse", StringComparison.Ordinal), $"{cell.Name}, {command}: {done}");

        var outcome = await OutcomeAsync(subject, attachment, cell);

        // Whatever it was, the agent's next look finds it, and arms the page again.
        Enforcer.Register(attachment, frames);
        Assert.Empty(Enforcer.Arm(attachment, MarkerVerifier.FindUnmarked(attachment, frames, cell.Policy), cell.Policy, Only(cell)));
        Assert.True(MarkerVerifier.FindUnmarked(attachment, frames, cell.Policy).IsEmpty);
        Assert.Contains(await OutcomeAsync(subject, attachment, cell), new[] { Marker, Trap });
        return done == "ok" ? outcome : outcome + Refused;
    }

    /// <summary>Reads the page while nobody answers events; one that waits is then answered as the agent does.</summary>
    private static async Task<string> OutcomeAsync(GuestSubject subject, Attachment attachment, EnforcementCell cell)
    {
        var (outcome, answer) = await subject.ReadAsync(Struck(subject));
        if (outcome == Trap)
        {
            var events = new UffdEvent[16];
            var handler = new FaultHandler(attachment, () => { });
            handler.Handle(events.AsSpan(0, attachment.Userfaultfd.ReadEvents(events)));
            Assert.StartsWith(Marker, await answer, StringComparison.Ordinal);
        }

        return outcome.StartsWith(Marker, StringComparison.Ordinal) ? Marker : outcome;
    }

    /// <summary>The cell that cannot be, done all the same.</summary>
    private static async Task<string> TryImpossibleAsync(EnforcementCell cell)
    {
        await using var subject = await StartAsync(cell.Memory);
        using var attachment = subject.Attach();
        Enforcer.Register(attachment, Frames(subject));
        if (cell.Zap == ZapMethod.PunchHole)
        {
            var refused = await subject.AskAsync($"punch-hole {Struck(subject)} 1");
            Assert.StartsWith("errno", refused, StringComparison.Ordinal);
            return refused;
        }

        await subject.DoAsync($"replace {Struck(subject)} 1");
        var read = await subject.AskAsync($"read {Struck(subject)}");
        Assert.StartsWith("data", read, StringComparison.Ordinal);
        return read;
    }

    private static void Arm(Attachment attachment, FrameSet frames, EnforcementCell cell)
    {
        attachment.Trapped = frames;
        Assert.Empty(Enforcer.Arm(attachment, frames, cell.Policy, Only(cell)));
        Assert.True(MarkerVerifier.FindUnmarked(attachment, frames, cell.Policy).IsEmpty);
        if (cell.Policy == EnforcementPolicy.Marker)
        {
            Assert.Equal(frames.Ranges, MarkerVerifier.FindMarked(attachment).Ranges);
        }
    }

    private static EnforcementTable Only(EnforcementCell cell) => new([new CellState(cell, null)]);

    private static async Task<GuestSubject> StartAsync(MemoryClass memory)
    {
        var huge = memory is MemoryClass.Hugetlb or MemoryClass.HugetlbPrivate;
        var subject = await GuestSubject.StartAsync(memory, huge ? 6 << 20 : 4 << 20);
        await subject.DoAsync($"fill 0 {subject.Bytes / subject.PageBytes} {Value}");
        return subject;
    }

    private static long Struck(GuestSubject subject) => subject.PageBytes == FrameMath.FrameBytes ? 5 : 1;

    private static FrameSet Frames(GuestSubject subject)
    {
        var frames = subject.PageBytes / FrameMath.FrameBytes;
        return FrameSet.Of([new FrameRange(Struck(subject) * frames, (Struck(subject) + 1) * frames)]);
    }

    private static string Line(string memory, string zap, string policy, IEnumerable<string> columns) =>
        $"{memory,-16} {zap,-11} {policy,-7} {string.Join(" ", columns.Select(column => $"{column,-16}"))}".TrimEnd();
}
