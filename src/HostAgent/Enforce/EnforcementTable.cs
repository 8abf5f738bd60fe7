namespace Fleet.HostAgent.Enforce;

/// <summary>What this kernel was seen to do, cell by cell; the engine does nothing that is not in it.</summary>
public sealed class EnforcementTable
{
    private static readonly Lazy<EnforcementTable> Probed = new(() => new EnforcementTable(CellProbe.TryAll()));

    private readonly Dictionary<EnforcementCell, CellState> _cells;

    public EnforcementTable(IEnumerable<CellState> cells) => _cells = cells.ToDictionary(state => state.Cell);

    /// <summary>Of this host; found out once in the life of the process, at the first use.</summary>
    public static EnforcementTable OfThisHost => Probed.Value;

    public IEnumerable<CellState> Cells => EnforcementCell.All.Select(Of);

    public CellState Of(EnforcementCell cell) => _cells.GetValueOrDefault(cell) ?? new CellState(cell, "not probed");

    /// <summary>The methods that work, the one to take first in front.</summary>
    public IReadOnlyList<ZapMethod> Methods(MemoryClass memory, EnforcementPolicy policy) =>
        [.. EnforcementCell.All.Where(cell => cell.Memory == memory && cell.Policy == policy && Of(cell).IsAble).Select(cell => cell.Zap)];

    /// <summary>Null when at least one method works; else why none does.</summary>
    public string? WhyNot(MemoryClass memory, EnforcementPolicy policy) =>
        Methods(memory, policy).Count > 0
            ? null
            : string.Join("; ", EnforcementCell.All.Where(cell => cell.Memory == memory && cell.Policy == policy && cell.Impossible is null)
                .Select(cell => $"{EnforcementCell.NameOf(cell.Zap)}: {Of(cell).WhyNot}"));
}
