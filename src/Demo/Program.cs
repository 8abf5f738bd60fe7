using System.CommandLine;
using Fleet.Demo;
using Fleet.Demo.Running;
using Fleet.Demo.Story;
using Spectre.Console;

var stay = new Option<bool>("--stay") { Description = "Keep the fleet up at the end and print the address of Swagger UI and a token." };
var policy = new Option<string>("--policy") { Description = "The agents' policy: marker (poisoned when armed) or trap (poisoned at the first access).", DefaultValueFactory = _ => "marker" };
policy.AcceptOnlyFromAmong("marker", "trap");
var vcpu = new Option<string>("--vcpu") { Description = "What runs the guest: kvm, or software, which needs no /dev/kvm.", DefaultValueFactory = _ => "kvm" };
vcpu.AcceptOnlyFromAmong("kvm", "software");
var root = new RootCommand("Fleet in one command: a control plane, two host agents and a VM as real processes; a memory error; a guest that is stopped at the page, before and after it migrates.") { policy, vcpu, stay };
root.SetAction((parsed, cancellationToken) => RunAsync(parsed.GetRequiredValue(policy), parsed.GetRequiredValue(vcpu), parsed.GetValue(stay), cancellationToken));
return await root.Parse(args).InvokeAsync();

static async Task<int> RunAsync(string policy, string vcpu, bool stay, CancellationToken cancellationToken)
{
    var missing = Preflight.Missing(needsKvm: vcpu == "kvm");
    if (missing.Count > 0)
    {
        AnsiConsole.MarkupLine("[red bold]This machine does not permit what the demo needs:[/]");
        missing.ToList().ForEach(line => AnsiConsole.WriteLine($"  {line}"));
        return 2;
    }

    var board = new Storyboard(AnsiConsole.Console);
    try
    {
        board.Chapter("Fleet: memory poison that follows the VM");
        await using var fleet = await board.DoAsync("the control plane starts", () => LocalFleet.StartAsync(cancellationToken));
        var scene = new Scene(fleet, board, policy, vcpu, cancellationToken);
        await new OneHost(scene).RunAsync();
        await new Move(scene).RunAsync();
        await new NegativeControl(scene).RunAsync();
        board.Close();
        if (stay)
        {
            await StayAsync(fleet, cancellationToken);
        }
    }
    catch (Exception exception) when (exception is TimeoutException or HttpRequestException or IOException or InvalidOperationException)
    {
        board.Close();
        AnsiConsole.MarkupLineInterpolated($"[red bold]The story broke off:[/] {exception.Message}");
        return 1;
    }
    catch (OperationCanceledException)
    {
        AnsiConsole.MarkupLine("[yellow]Interrupted; everything that was started has been ended.[/]");
        return 130;
    }

    return board.AllHeld ? 0 : 1;
}

static async Task StayAsync(LocalFleet fleet, CancellationToken cancellationToken)
{
    AnsiConsole.WriteLine();
    // Not through the console library, which would break the token at the line's end: it is there to be copied.
    Console.WriteLine($"The fleet stays up. Swagger UI: {fleet.Address}swagger");
    Console.WriteLine($"Token:  {fleet.AdminToken}");
    Console.WriteLine($"Logs:   {fleet.Root}");
    Console.WriteLine("End with Ctrl-C.");
    var stopped = new TaskCompletionSource();
    await using var registration = cancellationToken.Register(() => stopped.TrySetResult());
    await stopped.Task;
}
