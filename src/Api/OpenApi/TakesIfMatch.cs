namespace Fleet.Api.OpenApi;

/// <summary>Marks operations that honour If-Match, for the document.</summary>
public sealed class TakesIfMatch;
