using Microsoft.Extensions.Options;

namespace Fleet.Api.Startup;

public sealed class PlainHttpGuard(IConfiguration configuration, IOptions<FleetOptions> options) : IHostedService
{
    public Task StartAsync(CancellationToken cancellationToken)
    {
        ListenAddresses.RefusePlainHttp(configuration, options.Value);
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
