namespace Fleet.Contracts;

/// <summary>A page of a list. <paramref name="Next"/> is an opaque cursor for <c>?after=</c>, null on the last page.</summary>
public record ItemList<T>(IReadOnlyList<T> Items, string? Next);
