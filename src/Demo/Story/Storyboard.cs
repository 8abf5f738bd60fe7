using System.Diagnostics;
using Spectre.Console;

namespace Fleet.Demo.Story;

/// <param name="Claim">What was asserted.</param>
/// <param name="Evidence">What the guest, the kernel or the API said.</param>
public sealed record Assertion(string Claim, string Evidence, bool Held);

/// <summary>Shows the story while it happens, and keeps what was asserted. A claim that does not hold does not stop the story: the rest is worth seeing.</summary>
public sealed class Storyboard(IAnsiConsole console)
{
    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly List<Assertion> _assertions = [];

    public bool AllHeld => _assertions.Count > 0 && _assertions.TrueForAll(assertion => assertion.Held);

    public void Chapter(string title) => console.Write(new Rule($"[bold]{Markup.Escape(title)}[/]") { Justification = Justify.Left });

    /// <summary>Something that takes time; a spinner says what is waited for.</summary>
    public async Task<T> DoAsync<T>(string title, Func<Task<T>> work)
    {
        var started = Stopwatch.GetTimestamp();
        var result = console.Profile.Capabilities.Interactive
            ? await console.Status().Spinner(Spinner.Known.Dots).StartAsync($"{Markup.Escape(title)} …", _ => work())
            : await work();
        console.MarkupLineInterpolated($"  [grey]{Elapsed()}[/] {title} [grey]({Stopwatch.GetElapsedTime(started).TotalMilliseconds:0} ms)[/]");
        return result;
    }

    public Task DoAsync(string title, Func<Task> work) =>
        DoAsync(title, async () =>
        {
            await work();
            return true;
        });

    public void Check(string claim, bool held, string evidence)
    {
        _assertions.Add(new Assertion(claim, evidence, held));
        var mark = held ? "[green]holds[/]" : "[red bold]DOES NOT HOLD[/]";
        console.MarkupLine($"  [grey]{Elapsed()}[/] {mark} {Markup.Escape(claim)} [grey]— {Markup.Escape(evidence)}[/]");
    }

    public void Close()
    {
        var table = new Table().Title("What was asserted").Border(TableBorder.Rounded).AddColumns("", "Claim", "Evidence").ShowRowSeparators();
        foreach (var assertion in _assertions)
        {
            table.AddRow(
                new Markup(assertion.Held ? "[green]yes[/]" : "[red bold]NO[/]"),
                new Text(assertion.Claim),
                new Text(assertion.Evidence));
        }

        console.Write(table);
        var held = _assertions.Count(assertion => assertion.Held);
        console.MarkupLineInterpolated($"[bold]{held} of {_assertions.Count} assertions held[/] in {Stopwatch.GetElapsedTime(_started).TotalSeconds:0.0} s");
    }

    private string Elapsed() => FormattableString.Invariant($"{Stopwatch.GetElapsedTime(_started).TotalSeconds,5:0.0}s");
}
